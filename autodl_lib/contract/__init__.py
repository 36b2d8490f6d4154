"""Runs as: everyone. The vocabulary that all processes share: states, tasks, requests, errors, settings, messages, codec."""
