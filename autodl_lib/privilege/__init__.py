"""Runs as: root, then as the task's owner. Every line that knows about uids: who asks, and becoming them for good."""
