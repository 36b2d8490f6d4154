"""Runs as: the supervisor. Who asks: connections of local users, their turns, and their way to the handlers."""
