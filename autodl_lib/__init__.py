"""The download service of a Linux machine: one folder for each kind of process; see docs/ARCHITECTURE.md."""

__version__ = "0.1.0"
