"""Runs as: the supervisor. What each request does: one function a method, listed in handlers/table.py."""
