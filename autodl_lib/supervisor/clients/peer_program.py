"""What a peer's process runs, as far as the kernel still knows when it has just connected.

Runs as: the supervisor.  Talks to: /proc.
Security: for the record only, nothing is decided by it: a process names itself as it likes, and may have ended, so
that its number is another one's. Whose it is comes from SO_PEERCRED alone.
Source: proc_pid_comm(5), proc_pid_exe(5).
"""

from __future__ import annotations

import os

from autodl_lib.supervisor.audit import printable

_MAX_LENGTH = 200
_COMM_BYTES = 64


def program_of(pid: int) -> str | None:
    """Return the name and the executable of a process, or None where it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            name = os.read(descriptor, _COMM_BYTES).decode("utf-8", "replace").rstrip("\n")
        finally:
            os.close(descriptor)
    except OSError:
        return None
    try:
        executable = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return printable(name)[:_MAX_LENGTH]
    return printable(f"{name} ({os.fsencode(executable).decode('utf-8', 'replace')})")[:_MAX_LENGTH]
