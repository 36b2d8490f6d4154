"""Runs as: the supervisor. Who is next, where, and how fast: users, hosts, rates, tries."""
