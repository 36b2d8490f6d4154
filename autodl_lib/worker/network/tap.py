"""The rest of a response's body, moved from its socket into the part file inside the kernel, past libcurl.

Runs as: the task's owner.  Talks to: a server, whose socket libcurl has opened; the part file.
Each byte is copied once instead of three times, which is what a large file costs where the network is fast.
Invariants: a socket is tapped only when the kernel says, after libcurl has let go of it, that all that was ever read
from it is what libcurl has handed over: so no byte was lost in libcurl, and none belongs to an encoding, to TLS or to
another protocol. (To pause libcurl is not enough: 7.88 reads on.) The pipe is empty between two calls of `move`.
How it fails: where the kernel or the file system can't do this, the bytes go through our memory instead.
Source: splice(2), tcp(7) and struct tcp_info in linux/tcp.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios

PIPE_BYTES = 1024 * 1024
_TCP_INFO = struct.Struct("=B127xQ")
"""tcpi_state, and tcpi_bytes_received, which is there since Linux 4.1 and counts the end of the stream as a byte."""
_CLOSE_WAIT = 8
_LOOKS = 500
"""Bytes may come in the middle of a look, which is then taken again."""
_UNABLE = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP}


class Tap:
    """One socket and the pipe between it and the file."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a socket.

        Raises: OSError.
        """
        self._socket = connected
        self._by_hand = False
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # this user has many pipes: it is as large as the kernel lets it be
            fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def move(self, part_fd: int, offset: int, most_bytes: int) -> int | None:
        """Put the next bytes into the part file; return how many, 0 at the end, None when none are there now.

        Raises: OSError of the file; ConnectionError and TimeoutError of the socket.
        """
        most_bytes = min(most_bytes, PIPE_BYTES)
        if self._by_hand:
            return self._move_by_hand(part_fd, offset, most_bytes)
        try:
            size = os.splice(self.fileno(), self._pipe[1], most_bytes, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _UNABLE:
                raise _of_the_socket(error) from None
            self._by_hand = True
            return self._move_by_hand(part_fd, offset, most_bytes)
        self._empty_pipe(part_fd, offset, size)
        return size

    def close(self) -> None:
        """Let go of the pipe, and of this descriptor of the socket."""
        self._socket.close()
        for end in self._pipe:
            os.close(end)

    def _empty_pipe(self, part_fd: int, offset: int, size: int) -> None:
        while size:
            if self._by_hand:
                data = os.read(self._pipe[0], size)
                _write(part_fd, data, offset)
                done = len(data)
            else:
                try:
                    done = os.splice(self._pipe[0], part_fd, size, offset_dst=offset, flags=os.SPLICE_F_MOVE)
                except OSError as error:
                    if error.errno not in _UNABLE:
                        raise
                    self._by_hand, done = True, 0
            offset += done
            size -= done

    def _move_by_hand(self, part_fd: int, offset: int, most_bytes: int) -> int | None:
        try:
            data = self._socket.recv(most_bytes, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _of_the_socket(error) from None
        _write(part_fd, data, offset)
        return len(data)


def connected_to(fd: int, local: tuple[str, int], peer: tuple[str, int]) -> socket.socket | None:
    """Return another descriptor of a TCP socket, None when it does not connect these two ends."""
    try:
        connected = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None  # it is no socket
    with contextlib.suppress(OSError):  # it is not connected any more
        is_tcp = connected.family in (socket.AF_INET, socket.AF_INET6) and connected.type == socket.SOCK_STREAM
        if is_tcp and connected.getsockname()[:2] == local and connected.getpeername()[:2] == peer:
            return connected
    connected.close()
    return None


def is_all_read(connected: socket.socket, handed_over_bytes: int) -> bool:
    """Tell whether just so much was ever read from a TCP socket."""
    for _ in range(_LOOKS):
        read_bytes = _read_bytes(connected)
        if read_bytes is not None:
            return read_bytes == handed_over_bytes
    return False


def _read_bytes(connected: socket.socket) -> int | None:
    """Return how much was ever read from a TCP socket; None where the kernel does not say, or more comes just now."""
    try:
        waiting = _waiting_bytes(connected)
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(info) < _TCP_INFO.size or _waiting_bytes(connected) != waiting:
            return None
    except OSError:
        return None
    state, received_bytes = map(int, _TCP_INFO.unpack_from(info))
    return received_bytes - (state == _CLOSE_WAIT) - waiting


def _waiting_bytes(connected: socket.socket) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(connected, termios.FIONREAD, bytes(4)))[0])


def _write(part_fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(part_fd, rest, offset)
        rest = rest[written:]
        offset += written


def _of_the_socket(error: OSError) -> OSError:
    """Return an error that nobody takes for one of the disk."""
    if isinstance(error, ConnectionError | TimeoutError):
        return error
    return ConnectionError(error.errno, error.strerror)
