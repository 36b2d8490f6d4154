"""Runs as: the task's owner. What speaks to servers: libcurl, what is asked of it, and what its answers mean."""
