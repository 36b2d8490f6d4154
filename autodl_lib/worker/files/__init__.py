"""Runs as: the task's owner. What is on the user's disk: names, part files, control files, final names, digests."""
