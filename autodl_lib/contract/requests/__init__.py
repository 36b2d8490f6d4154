"""Runs as: everyone. Every request that the daemon answers, declared once; a client loads those that it sends."""
