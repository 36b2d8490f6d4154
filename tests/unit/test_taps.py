"""A tap moves what a socket brings into a file, by the kernel or, where that can't be, by hand."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autodl_lib.worker.network import tap as module
from autodl_lib.worker.network.tap import PIPE_BYTES, Tap, connected_to, is_all_read

BODY = os.urandom(3 * PIPE_BYTES + 12345)
Splice = Callable[..., int]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: ours and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture
def part(tmp_path: Path) -> Iterator[int]:
    """An open file."""
    fd = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def send(theirs: socket.socket, body: bytes = BODY) -> threading.Thread:
    """Send a body and end the connection."""

    def run() -> None:
        theirs.sendall(body)
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def move_all(tap: Tap, part: int, offset: int) -> int:
    """Move all that comes; returns how much."""
    moved = 0
    while True:
        size = tap.move(part, offset + moved, PIPE_BYTES)
        if size == 0:
            return moved
        moved += size or 0


def refuse(errno_: int, when: Callable[[int, int], bool]) -> Splice:
    """Return a splice(2) that can't do some things."""
    splice = os.splice

    def refusing(source: int, target: int, size: int, **more: int) -> int:
        if when(source, target):
            raise OSError(errno_, os.strerror(errno_))
        return splice(source, target, size, **more)

    return refusing


def never(_source: int, _target: int) -> bool:
    return False


@pytest.mark.parametrize("refused", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("which", ["neither", "in", "out"])
def test_every_byte_comes_to_its_place_whatever_the_kernel_can_do(
    ends: tuple[socket.socket, socket.socket], part: int, monkeypatch: pytest.MonkeyPatch, which: str, refused: int
) -> None:
    ours, theirs = ends
    tap = Tap(ours.dup())
    when = {"neither": never, "in": lambda source, _: source == tap.fileno(), "out": lambda _, to: to == part}[which]
    monkeypatch.setattr(module.os, "splice", refuse(refused, when))
    os.pwrite(part, b"before", 0)
    thread = send(theirs)
    assert move_all(tap, part, 6) == len(BODY)
    thread.join()
    tap.close()
    assert os.pread(part, len(BODY) + 100, 0) == b"before" + BODY


def test_no_more_is_taken_than_is_wanted(ends: tuple[socket.socket, socket.socket], part: int) -> None:
    ours, theirs = ends
    theirs.sendall(b"0123456789")
    tap = Tap(ours.dup())
    assert tap.move(part, 0, 4) == 4
    tap.close()
    ours.setblocking(True)
    assert ours.recv(100) == b"456789"


def test_nothing_that_is_there_is_told_from_the_end(ends: tuple[socket.socket, socket.socket], part: int) -> None:
    ours, theirs = ends
    tap = Tap(ours.dup())
    assert tap.move(part, 0, 4) is None
    theirs.close()
    ours.setblocking(True)
    assert ours.recv(1) == b""
    assert tap.move(part, 0, 4) == 0
    tap.close()


@pytest.mark.parametrize("which", ["neither", "in"])
def test_a_connection_that_breaks_is_not_taken_for_the_disks_fault(
    ends: tuple[socket.socket, socket.socket], part: int, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    ours, theirs = ends
    tap = Tap(ours.dup())
    monkeypatch.setattr(module.os, "splice", refuse(errno.EINVAL, lambda *_: which == "in"))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    theirs.close()
    with pytest.raises(ConnectionError):
        tap.move(part, 0, 4)
    tap.close()


def test_an_error_of_the_disk_is_one(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"0123456789")
    tap = Tap(ours.dup())
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match=r"No space left") as raised:
        tap.move(full, 0, 4)
    assert not isinstance(raised.value, ConnectionError)
    tap.close()
    os.close(full)


def test_what_was_read_of_a_socket_is_known_to_the_byte(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"0123456789")
    ours.setblocking(True)
    assert is_all_read(ours, 0)
    assert ours.recv(4) == b"0123"
    assert is_all_read(ours, 4)
    assert not is_all_read(ours, 3)
    assert not is_all_read(ours, 10)
    theirs.shutdown(socket.SHUT_WR)
    assert ours.recv(100) == b"456789"
    assert ours.recv(100) == b""
    assert is_all_read(ours, 10)


def test_a_descriptor_is_known_by_both_ends_of_its_connection(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    local, peer = ours.getsockname(), theirs.getsockname()
    found = connected_to(ours.fileno(), local, peer)
    assert found is not None
    assert found.getpeername() == peer
    found.close()
    assert connected_to(ours.fileno(), peer, local) is None
    assert connected_to(ours.fileno(), (local[0], local[1] + 1), peer) is None
    with open(os.devnull, "rb") as no_socket:
        assert connected_to(no_socket.fileno(), local, peer) is None


def test_a_tap_leaves_nothing_open(ends: tuple[socket.socket, socket.socket], part: int) -> None:
    ours, theirs = ends
    before = len(os.listdir("/proc/self/fd"))
    thread = send(theirs)
    tap = Tap(ours.dup())
    move_all(tap, part, 0)
    thread.join()
    tap.close()
    assert len(os.listdir("/proc/self/fd")) == before
