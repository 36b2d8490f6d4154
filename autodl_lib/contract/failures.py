"""Why a download failed: stable codes of a task's `error`, and which of them are worth another try.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from enum import StrEnum


class FailureCode(StrEnum):
    """A task's `error.code`."""

    HTTP_ERROR = "http_error"
    NAME_RESOLUTION = "name_resolution"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    NETWORK = "network"
    TRUNCATED = "truncated"
    SERVER_BUSY = "server_busy"
    REMOTE_CHANGED = "remote_changed"
    CHECKSUM = "checksum"
    NETWORK_DOWN = "network_down"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    REMOTE_MISSING = "remote_missing"
    REDIRECT = "redirect"
    PROTOCOL = "protocol"
    BAD_URL = "bad_url"
    CONFLICT = "conflict"
    PERMISSION = "permission"
    FOLDER = "folder"
    DISK_FULL = "disk_full"
    DISK = "disk"
    RESOURCES = "resources"
    FILE_BUSY = "file_busy"
    WORKER_LOST = "worker_lost"
    ACCOUNT = "account"
    INTERNAL = "internal"


RETRYABLE = frozenset(
    {
        FailureCode.NAME_RESOLUTION,
        FailureCode.CONNECT,
        FailureCode.TIMEOUT,
        FailureCode.STALLED,
        FailureCode.NETWORK,
        FailureCode.NETWORK_DOWN,
        FailureCode.TRUNCATED,
        FailureCode.SERVER_BUSY,
        FailureCode.REMOTE_CHANGED,
        FailureCode.DISK_FULL,
        FailureCode.RESOURCES,
        FailureCode.FILE_BUSY,
        FailureCode.WORKER_LOST,
    }
)
"""Failures that may pass by themselves; every other one fails the task at once."""

NOT_THE_TASKS_FAULT = frozenset({FailureCode.NETWORK_DOWN, FailureCode.DISK_FULL})
"""Failures that say nothing about the task: they are waited out, however long it takes, and not counted."""
