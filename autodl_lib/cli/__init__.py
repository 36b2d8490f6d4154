"""Runs as: the caller. The command line: click commands and what they print."""
