"""Runs as: the caller. Finds the daemon, sends requests, raises its errors; starts the private daemon on demand."""
