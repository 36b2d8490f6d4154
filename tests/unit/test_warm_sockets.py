"""Connections at rest: whatever comes on one of them unasked is seen, and sockets of others are not taken for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from autodl_lib.worker.network.warm_sockets import WarmSockets

Pair = tuple[socket.socket, socket.socket]
MANY = 64


@pytest.fixture
def open_sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(open_sockets: ExitStack) -> Pair:
    """Our end, and the server's."""
    return new_pair(open_sockets)


def new_pair(stack: ExitStack) -> Pair:
    """Open a pair that is closed in the end."""
    ours, theirs = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(theirs)


def tcp_pair(stack: ExitStack) -> Pair:
    """Open a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = stack.enter_context(socket.create_connection(listener.getsockname()))
        theirs = stack.enter_context(listener.accept()[0])
    return ours, theirs


def warm(*sockets: socket.socket) -> WarmSockets:
    """Remember sockets."""
    known = WarmSockets()
    for one in sockets:
        known.add(one.fileno(), 0)
    return known


def test_without_any_socket_nothing_has_come() -> None:
    assert not WarmSockets().has_unasked_bytes()


def test_a_quiet_socket_has_nothing(pair: Pair) -> None:
    assert not warm(pair[0]).has_unasked_bytes()


def test_what_we_sent_is_not_what_came(pair: Pair) -> None:
    pair[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert not warm(pair[0]).has_unasked_bytes()


def test_a_single_byte_is_seen_and_is_not_read(pair: Pair) -> None:
    known = warm(pair[0])
    pair[1].sendall(b"H")
    assert known.has_unasked_bytes()
    assert known.has_unasked_bytes()
    assert pair[0].recv(10) == b"H"
    assert not known.has_unasked_bytes()


def test_what_came_before_the_request_ended_counts_too(pair: Pair) -> None:
    pair[1].sendall(b"HTTP/1.1 200 OK")
    assert warm(pair[0]).has_unasked_bytes()


def test_the_end_is_seen(pair: Pair) -> None:
    known = warm(pair[0])
    pair[1].close()
    assert known.has_unasked_bytes()


def test_the_end_of_one_direction_is_seen(open_sockets: ExitStack) -> None:
    ours, theirs = tcp_pair(open_sockets)
    known = warm(ours)
    theirs.shutdown(socket.SHUT_WR)
    assert known.has_unasked_bytes()


def test_a_reset_is_seen(open_sockets: ExitStack) -> None:
    ours, theirs = tcp_pair(open_sockets)
    known = warm(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert known.has_unasked_bytes()


@pytest.mark.parametrize("speaker", [0, 7, 15])
def test_one_of_many_is_seen(open_sockets: ExitStack, speaker: int) -> None:
    pairs = [new_pair(open_sockets) for _ in range(16)]
    known = warm(*[ours for ours, _ in pairs])
    assert not known.has_unasked_bytes()
    pairs[speaker][1].sendall(b"x")
    assert known.has_unasked_bytes()


def test_a_socket_that_is_closed_has_nothing(pair: Pair) -> None:
    known = warm(pair[0])
    pair[1].sendall(b"x")
    pair[0].close()
    assert not known.has_unasked_bytes()


def test_a_closed_socket_among_others_hides_none(open_sockets: ExitStack) -> None:
    pairs = [new_pair(open_sockets) for _ in range(3)]
    known = warm(*[ours for ours, _ in pairs])
    pairs[1][0].close()
    assert not known.has_unasked_bytes()
    pairs[2][1].sendall(b"x")
    assert known.has_unasked_bytes()


def test_a_number_that_stands_for_another_socket_is_not_the_one_that_was_remembered(
    pair: Pair, open_sockets: ExitStack
) -> None:
    known = warm(pair[0])
    ours, theirs = new_pair(open_sockets)
    theirs.sendall(b"an answer that was asked for")
    os.dup2(ours.fileno(), pair[0].fileno())
    assert not known.has_unasked_bytes()


def test_a_number_is_remembered_again_for_the_socket_that_it_stands_for_now(
    pair: Pair, open_sockets: ExitStack
) -> None:
    known = warm(pair[0])
    ours, theirs = new_pair(open_sockets)
    os.dup2(ours.fileno(), pair[0].fileno())
    known.add(pair[0].fileno(), 0)
    assert not known.has_unasked_bytes()
    theirs.sendall(b"x")
    assert known.has_unasked_bytes()


def test_a_number_that_stands_for_nothing_is_not_remembered(pair: Pair) -> None:
    fd = pair[0].detach()
    known = WarmSockets()
    known.add(fd, 0)
    os.close(fd)
    known.add(fd, 0)
    known.add(-1, 0)
    assert not known.has_unasked_bytes()


def test_what_is_forgotten_is_not_looked_at(pair: Pair) -> None:
    known = warm(pair[0])
    pair[1].sendall(b"x")
    known.forget()
    assert not known.has_unasked_bytes()
    known.add(pair[0].fileno(), 0)
    assert known.has_unasked_bytes()


@pytest.mark.parametrize("speaker", [40, 70, MANY + 39])
def test_of_very_many_the_latest_are_remembered(open_sockets: ExitStack, speaker: int) -> None:
    pairs = [new_pair(open_sockets) for _ in range(MANY + 40)]
    known = warm(*[ours for ours, _ in pairs])
    pairs[speaker][1].sendall(b"x")
    assert known.has_unasked_bytes()


def test_memory_of_sockets_is_bounded(open_sockets: ExitStack) -> None:
    pairs = [new_pair(open_sockets) for _ in range(MANY + 1)]
    known = warm(*[ours for ours, _ in pairs])
    pairs[0][1].sendall(b"x")
    assert not known.has_unasked_bytes(), "the oldest is forgotten"


def test_a_socket_that_rests_again_is_not_the_oldest_any_more(open_sockets: ExitStack) -> None:
    pairs = [new_pair(open_sockets) for _ in range(MANY + 1)]
    known = warm(*[ours for ours, _ in pairs[:MANY]])
    known.add(pairs[0][0].fileno(), 0)  # it served another request
    known.add(pairs[MANY][0].fileno(), 0)
    pairs[0][1].sendall(b"x")
    assert known.has_unasked_bytes()


def test_what_a_connection_has_brought_is_added_up(pair: Pair) -> None:
    known = WarmSockets()
    assert known.handed_over_bytes(pair[0].fileno()) == 0
    known.add(pair[0].fileno(), 1000)
    known.add(pair[0].fileno(), 234)
    assert known.handed_over_bytes(pair[0].fileno()) == 1234


def test_another_connection_of_the_same_number_has_brought_nothing(pair: Pair, open_sockets: ExitStack) -> None:
    known = WarmSockets()
    known.add(pair[0].fileno(), 1000)
    ours, _ = new_pair(open_sockets)
    os.dup2(ours.fileno(), pair[0].fileno())
    assert known.handed_over_bytes(pair[0].fileno()) == 0
    known.add(pair[0].fileno(), 5)
    assert known.handed_over_bytes(pair[0].fileno()) == 5


def test_a_connection_that_is_forgotten_is_as_a_new_one(pair: Pair) -> None:
    known = WarmSockets()
    known.add(pair[0].fileno(), 1000)
    known.forget()
    assert known.handed_over_bytes(pair[0].fileno()) == 0


def test_what_comes_on_a_socket_that_serves_a_request_was_asked_for(open_sockets: ExitStack) -> None:
    (busy, its_server), (quiet, _) = new_pair(open_sockets), new_pair(open_sockets)
    known = warm(busy, quiet)
    its_server.send(b"HTTP/1.1 200 OK\r\n")
    assert not known.has_unasked_bytes({busy.fileno()})
    assert known.has_unasked_bytes({quiet.fileno()})


def test_a_connection_that_was_there_before_is_the_same_one(pair: Pair) -> None:
    known = warm(pair[0])
    known.add(pair[0].fileno(), 1000, is_known=True)
    known.add(pair[0].fileno(), 234, is_known=True)
    assert known.handed_over_bytes(pair[0].fileno()) == 1234
    pair[1].sendall(b"x")
    assert known.has_unasked_bytes()


@pytest.mark.parametrize("what", ["a connection was made", "a request was stopped"])
def test_one_that_may_have_come_in_the_place_of_another_is_looked_at(
    pair: Pair, open_sockets: ExitStack, what: str
) -> None:
    fd = pair[0].fileno()
    known = WarmSockets()
    known.add(fd, 1000)
    ours, theirs = new_pair(open_sockets)
    os.dup2(ours.fileno(), fd)
    if what == "a connection was made":
        known.add(new_pair(open_sockets)[0].fileno(), 0)
    else:
        known.doubt()
    known.add(fd, 1, is_known=True)
    assert known.handed_over_bytes(fd) == 1
    theirs.sendall(b"x")
    assert known.has_unasked_bytes()
