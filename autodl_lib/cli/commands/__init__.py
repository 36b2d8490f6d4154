"""Runs as: the caller. One file for each group of verbs; `commands()` of each returns its click commands."""
