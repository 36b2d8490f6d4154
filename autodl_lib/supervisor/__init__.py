"""Runs as: root (or the private daemon's user). Listens, authorises, schedules, and owns the pool of workers."""
