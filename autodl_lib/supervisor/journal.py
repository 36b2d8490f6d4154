"""Log lines with fields, straight to systemd's journal: `journalctl -u autodl TASK_ID=17`.

Runs as: the supervisor.  Talks to: journald, by datagrams on its socket.
Security: what a server or a user wrote stands in a value that is counted in bytes, so it can't make up fields.
Invariants: the loop never waits. A journal that takes nothing at the moment loses lines and is told how many; one that
is not there is replaced by standard error, as text. A user whose name is not known yet is looked up on a thread.
Source: systemd.io, "Native Journal Protocol"; sd-daemon(3) for the priorities in text; systemd.exec(5), JOURNAL_STREAM.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from autodl_lib.contract.task import Uid
from autodl_lib.privilege.accounts import find_account

JOURNAL_SOCKET = "/run/systemd/journal/socket"

_IDENTIFIER = "autodl"
_MAX_VALUE_BYTES = 48 * 1024
"""A datagram must fit into the socket's buffer, some 200 KiB; what is longer is cut."""

_MAX_NAMES = 4096
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7
_UID = "AUTODL_UID"
_USER = "AUTODL_USER"
_NAMES = {"event": "EVENT", "task_id": "TASK_ID"}
"""Fields with a name of their own; every other one is called AUTODL_ and its name."""

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def is_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Return whether a descriptor of this process leads to the journal."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


class JournalHandler(logging.Handler):
    """Sends log records as journal entries."""

    def __init__(self, path: str = JOURNAL_SOCKET, stderr: int = 2) -> None:
        super().__init__()
        self._path = path
        self._stderr = stderr
        self._lost = 0
        self._names: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            fields = dict(_fields(record, self.format(record)))
            uid = fields.get(_UID)
            if uid is None or _USER in fields:
                self._send(fields)
            elif uid in self._names:
                self._send({**fields, _USER: self._names[uid]})
            else:
                self._thread.submit(self._send_with_name, fields, uid)
        except Exception:  # noqa: BLE001 - as every handler of logging: no log line ends who writes it
            self.handleError(record)

    def close(self) -> None:
        """Send what waits for a name, and close."""
        self._thread.shutdown()
        self._socket.close()
        super().close()

    def _send_with_name(self, fields: Mapping[str, str], uid: str) -> None:
        account = find_account(Uid(int(uid)))
        if len(self._names) >= _MAX_NAMES:
            self._names.clear()
        self._names[uid] = account.name if account else uid
        self._send({**fields, _USER: self._names[uid]})

    def _send(self, fields: Mapping[str, str]) -> None:
        if self._lost:
            fields = {**fields, "AUTODL_LOST_LINES": str(self._lost)}
        try:
            self._socket.sendto(encode(fields), self._path)
        except BlockingIOError:
            self._lost += 1
        except OSError:
            self._write(fields)
        else:
            self._lost = 0

    def _write(self, fields: Mapping[str, str]) -> None:
        """Write a line to standard error, which is a socket too where the journal reads it: without waiting."""
        text = "".join(f"<{fields['PRIORITY']}>{line}\n" for line in fields["MESSAGE"].splitlines())
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._stderr)) as stream:
            stream.send(text.encode("utf-8", "replace"), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def encode(fields: Mapping[str, str]) -> bytes:
    """Return one entry of the journal's protocol; a value with a line feed goes with its length before it."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "replace")[:_MAX_VALUE_BYTES]
        if b"\n" in data:
            parts.append(name.encode("ascii") + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode("ascii") + b"=" + data + b"\n")
    return b"".join(parts)


def _fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", message
    yield "PRIORITY", str(_priority(record.levelno))
    yield "SYSLOG_IDENTIFIER", _IDENTIFIER
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or ""
    for name, value in vars(record).items():
        if name not in _OWN_ATTRIBUTES and value is not None:
            yield _NAMES.get(name, f"AUTODL_{name.upper()}"), str(value)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG_PRIORITY)
