"""Runs as: the task's owner. One file's way from the network into its part file: requests, responses, pace."""
