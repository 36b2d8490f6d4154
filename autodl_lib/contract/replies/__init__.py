"""Runs as: everyone. What the daemon answers: the `result` of a JSON-RPC reply; a client loads what it reads."""
