"""Runs as: the task's owner. Transfers, part files and publishing; the only user of pycurl."""
