"""Runs as: an unprivileged account of its own, or a user. HTTP in, client out, for programs without Unix sockets."""
