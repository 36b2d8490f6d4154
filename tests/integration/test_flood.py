"""A user who floods the daemon: bounded, cut off where they leave things half done, and nobody else's trouble."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.accounts import User, accounts
from support.daemon import Daemon
from support.rpc import Refused, Wire, request
from support.waiting import wait_until

NOWHERE = "http://127.0.0.1:1/x"


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("flooder", "quiet") as made:
        yield made


@contextlib.contextmanager
def held_by(user: User, path: Path, count: int) -> Iterator[list[socket.socket]]:
    """Connections of a user, made as them and used here."""
    ours, theirs = socket.socketpair()
    peers: list[socket.socket] = []

    def connect() -> None:
        for _ in range(count):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
                socket.send_fds(theirs, [b"x"], [peer.fileno()])
            theirs.recv(1)

    import threading

    def take() -> None:
        for _ in range(count):
            _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
            peers.append(socket.socket(fileno=descriptor))
            ours.send(b"y")

    taker = threading.Thread(target=take)
    taker.start()
    user.do(connect)
    taker.join()
    ours.close()
    theirs.close()
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def lines_of(peer: socket.socket, count: int) -> list[bytes]:
    peer.settimeout(45)
    with peer.makefile("rb") as stream:
        return [stream.readline() for _ in range(count)]


def test_a_user_with_all_their_connections_leaves_others_theirs(daemon: Daemon, users: dict[str, User]) -> None:
    flooder, quiet = users["flooder"], users["quiet"]
    [task_id] = quiet.call(daemon.socket, "add", urls=[NOWHERE], paused=True)["ids"]
    with held_by(flooder, daemon.socket, 250):
        assert flooder.first_answer(daemon.socket)["error"]["data"]["code"] == "busy"
        assert quiet.call(daemon.socket, "status", id=task_id)["id"] == task_id
    wait_until(lambda: _is_served(flooder, daemon), "there is room again")


def test_questions_of_one_user_over_many_connections_do_not_come_before_another_s(
    daemon: Daemon, users: dict[str, User]
) -> None:
    flooder, quiet = users["flooder"], users["quiet"]
    [task_id] = quiet.call(daemon.socket, "add", urls=[NOWHERE], paused=True)["ids"]
    flooder.call(daemon.socket, "add", urls=[NOWHERE] * 5000, paused=True)
    with held_by(flooder, daemon.socket, 100) as peers:
        for peer in peers:
            peer.sendall(request(1, "list", limit=5000))
        assert quiet.call(daemon.socket, "status", id=task_id)["id"] == task_id
        answered = 0
        for peer in peers:
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                answered += peer.recv(1 << 20).count(b"\n") > 1
        assert answered < 50, "most of 100 long answers are still to come"


def test_many_long_lines_of_one_user_do_not_fill_memory(daemon: Daemon, users: dict[str, User]) -> None:
    flooder, quiet = users["flooder"], users["quiet"]
    before = psutil.Process(daemon.pid).memory_info().rss
    cut = 0
    with held_by(flooder, daemon.socket, 60) as peers:
        for peer in peers:
            peer.settimeout(45)
            try:
                peer.sendall(b'{"half a line": "' + b"x" * 3_000_000)
            except (BrokenPipeError, ConnectionResetError):
                cut += 1
        assert psutil.Process(daemon.pid).memory_info().rss - before < 150_000_000
        assert quiet.call(daemon.socket, "stats")
    assert cut >= 60 - 64 * 1024 * 1024 // 3_000_000 - 5


def test_many_watches_of_one_user_are_refused_and_each_sees_the_end_of_all(
    daemon: Daemon, users: dict[str, User]
) -> None:
    flooder = users["flooder"]

    def watch_all() -> list[Any]:
        wires = [Wire(daemon.socket) for _ in range(65)]
        for wire in wires[:64]:
            wire.call("watch")
        try:
            wires[64].call("watch")
        except Refused as refusal:
            code = refusal.code
        ids = set(wires[64].call("add", urls=[NOWHERE] * 6000, dir="/tmp", paused=True)["ids"])
        wires[64].call("cancel", ids=sorted(ids))
        for wire in wires[:3]:  # meanwhile the others are sent as much as they are
            left = set(ids)
            for task in wire.tasks():
                if task["state"] == "cancelled":
                    left.discard(task["id"])
                if not left:
                    break
        return [code, len(ids), sum(wire.is_cut() for wire in wires)]

    assert flooder.do(watch_all) == ["busy", 6000, 0]


def test_more_changes_than_may_be_under_way_are_all_made_in_their_order(daemon: Daemon, users: dict[str, User]) -> None:
    def add_many() -> list[int]:
        with Wire(daemon.socket) as wire:
            for _ in range(1000):
                wire.ask("add", urls=[NOWHERE], dir="/tmp", paused=True)
            return [wire.reply()["result"]["ids"][0] for _ in range(1000)]

    ids = users["flooder"].do(add_many)
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000


def test_an_add_of_one_does_not_overtake_an_add_of_many_before_it(daemon: Daemon, users: dict[str, User]) -> None:
    def add_both() -> list[list[int]]:
        with Wire(daemon.socket) as wire:
            wire.ask("add", urls=[NOWHERE] * 20_000, dir="/tmp", paused=True)
            wire.ask("add", urls=[NOWHERE], dir="/tmp", paused=True)
            return [wire.reply()["result"]["ids"] for _ in range(2)]

    many, one = users["flooder"].do(add_both)
    assert (len(many), len(one)) == (20_000, 1)
    assert many == sorted(many)
    assert many[-1] < one[0]


def test_a_long_page_ends_where_it_is_heavy_and_the_next_one_goes_on(daemon: Daemon, users: dict[str, User]) -> None:
    quiet = users["quiet"]
    url = NOWHERE + "y" * 4000
    ids = quiet.call(daemon.socket, "add", urls=[url] * 900, paused=True)["ids"]
    pages = []
    after: int | None = 0
    while after is not None:
        page = quiet.call(daemon.socket, "list", after=after, limit=5000)
        pages.append([task["id"] for task in page["tasks"]])
        after = page["next"]
    assert len(pages) > 1
    assert [task_id for page in pages for task_id in page] == ids


def _is_served(user: User, daemon: Daemon) -> bool:
    def ask() -> bool:
        try:
            with Wire(daemon.socket) as wire:
                return bool(wire.call("stats"))
        except (Refused, ConnectionError):
            return False

    return bool(user.do(ask))
