"""Runs as: everyone. What all processes share: states, tasks, requests, errors, settings, messages, the codec."""
