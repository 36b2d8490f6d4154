"""HTTP clients that are wrong, slow, or many."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import socket

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.accounts import User
from support.daemon import Daemon, MakeDaemon
from support.http_front import HttpFront, MakeFront, read_all, read_reply, rpc_body
from support.waiting import wait_until

MIB = 1024 * 1024
HOST = b"Host: localhost\r\n"


def status_of(data: bytes) -> int | None:
    return int(data.split(b" ", 2)[1]) if data.startswith(b"HTTP/1.1 ") else None


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /stats\r\n\r\n",
        b"GET  /stats HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /sta ts HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /stats HTTP/2.0\r\n" + HOST + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b"sp ace: x\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b"nul: \x00\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
        b"GET http://evil.example/stats HTTP/1.1\r\n" + HOST + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b"Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /stats HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 3000 + b"\r\n",
    ],
)
def test_bytes_that_are_no_request_are_answered_as_that_and_no_more(front: HttpFront, data: bytes) -> None:
    assert status_of(front.raw(data)) in (400, 401, 405, 431, 501, 505)
    assert front.get("/stats").status == 200


@pytest.mark.parametrize("lines", [["X: y"] * 100, ["X: " + "y" * 16 * 1024], ["X: " + "y" * 6000] * 3])
def test_a_head_is_of_modest_size(front: HttpFront, lines: list[str]) -> None:
    answered = front.raw(front.head("GET /stats HTTP/1.1", *lines))
    assert (status_of(answered), b"bad_http" in answered) == (431, True)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"GET ",
                    b"POST ",
                    b"/rpc",
                    b"/stats",
                    b" HTTP/1.1\r\n",
                    HOST,
                    b"Content-Length: ",
                    b"7",
                    b"\r\n",
                    b"\r\n\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"TOKEN",
                    b"Expect: 100-continue\r\n",
                    b"Content-Type: application/json\r\n",
                ]
            ),
        ),
        max_size=25,
    )
)
def test_any_bytes_at_all_do_no_harm(front: HttpFront, pieces: list[bytes]) -> None:
    bearer = f"Authorization: Bearer {front.token}\r\n".encode()
    answered = front.raw(b"".join(bearer if piece == b"TOKEN" else piece for piece in pieces))
    assert answered == b"" or status_of(answered) is not None


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_question_has_no_body(front: HttpFront, line: str) -> None:
    answered = front.raw(front.head("GET /stats HTTP/1.1", line) + b"5\r\nhello\r\n0\r\n\r\n")
    assert status_of(answered) == 400
    assert b"unwanted_body" in answered


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((), 411),
        (("Transfer-Encoding: chunked",), 411),
        (("Transfer-Encoding: chunked", "Content-Length: 5"), 411),
        (("Transfer-Encoding: gzip, chunked",), 501),
        ((f"Content-Length: {4 * MIB + 1}",), 413),
        (("Content-Length: 99999999999999999999",), 413),
        (("Content-Length: 5", "Content-Encoding: gzip"), 415),
    ],
)
def test_a_body_has_a_known_and_modest_length(front: HttpFront, lines: tuple[str, ...], status: int) -> None:
    head = front.head("POST /rpc HTTP/1.1", "Content-Type: application/json", *lines)
    assert status_of(front.raw(head + b"5\r\nhello\r\n0\r\n\r\n")) == status


def test_a_body_up_to_the_limit_is_read(front: HttpFront) -> None:
    body = rpc_body("stats")
    reply = front.post(body + b" " * (4 * MIB - len(body)))
    assert reply.status == 200


def test_who_sends_on_after_a_refusal_can_still_read_it(front: HttpFront) -> None:
    head = front.head("POST /rpc HTTP/1.1", "Content-Type: application/json", f"Content-Length: {8 * MIB}")
    with front.connect() as client:
        client.sendall(head)
        # Many clients look for an answer when they have sent all, and never when that fails.
        for _ in range(8):
            client.sendall(bytes(64 * 1024))
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert client.recv(65536) == b"", "the end, and not that the connection was reset"
        client.sendall(bytes(64 * 1024))


def test_who_asks_before_sending_is_told_to_go_on(front: HttpFront) -> None:
    body = rpc_body("stats")
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue")
    with front.connect() as client:
        client.sendall(front.head("POST /rpc HTTP/1.1", *lines))
        assert client.recv(100) == b"HTTP/1.1 100 \r\n\r\n"
        client.sendall(body)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_who_asks_before_sending_without_the_token_is_not(front: HttpFront) -> None:
    lines = ("Content-Type: application/json", "Content-Length: 9", "Expect: 100-continue")
    with front.connect() as client:
        client.sendall(front.head("POST /rpc HTTP/1.1", *lines, token=False))
        assert client.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_connection_serves_many_requests_also_after_an_error(front: HttpFront) -> None:
    client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    with contextlib.closing(client):
        for path, status in [("/stats", 200), ("/nothing", 404), ("/tasks", 200), ("/tasks/77", 404), ("/stats", 200)]:
            client.request("GET", path, headers=front.bearer)
            if client.sock is not None:
                port = client.sock.getsockname()[1]
            assert read_reply(client.getresponse()).status == status
            assert client.sock.getsockname()[1] == port


def test_requests_that_come_ahead_are_answered_in_order(front: HttpFront) -> None:
    bodies = [json.dumps({"jsonrpc": "2.0", "id": number, "method": "stats"}).encode() for number in range(50)]
    kind = "Content-Type: application/json"
    ahead = [front.head("POST /rpc HTTP/1.1", kind, f"Content-Length: {len(body)}") + body for body in bodies]
    answered = front.raw(b"".join(ahead))
    numbers = [json.loads(part.split(b"\n")[0])["id"] for part in answered.split(b"\r\n\r\n")[1:]]
    assert numbers == list(range(50))


def test_an_old_client_is_answered_once(front: HttpFront) -> None:
    answered = front.raw(front.head("GET /stats HTTP/1.0") * 2)
    assert answered.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in answered.lower()


def test_who_wants_to_speak_something_else_is_answered_in_http(front: HttpFront) -> None:
    reply = front.get("/stats", Upgrade="websocket", Connection="Upgrade")
    assert reply.status == 200


@pytest.fixture
def hasty(make_daemon: MakeDaemon, make_front: MakeFront) -> HttpFront:
    """One that waits for nobody long."""
    return make_front(make_daemon().start(), "--patience", "1").start()


def test_a_client_that_takes_its_time_is_cut_off(hasty: HttpFront) -> None:
    body = rpc_body("stats")
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    for begin in (
        b"",
        b"GET /stats HTTP/1.1\r\nHost: loc",
        hasty.head("GET /stats HTTP/1.1")[:-2],
        hasty.head("POST /rpc HTTP/1.1", *lines) + body[:-1],
    ):
        with hasty.connect() as client:
            client.sendall(begin)
            answered = read_all(client)
            assert (status_of(answered), b"too_slow" in answered) == (408, True)
    assert hasty.get("/stats").status == 200


def test_a_client_that_was_served_may_be_as_slow_with_the_next_request(hasty: HttpFront) -> None:
    with hasty.connect() as client:
        client.sendall(hasty.head("GET /stats HTTP/1.1") + b"GET /stats HT")
        first, _, second = read_all(client).partition(b"}\n")
    assert (status_of(first), status_of(second)) == (200, 408)
    assert b"connection: close" in second.lower()


def test_a_header_every_now_and_then_buys_no_time(hasty: HttpFront) -> None:
    with hasty.connect() as client:
        client.sendall(b"GET /stats HTTP/1.1\r\n")
        client.settimeout(0.05)
        answered = b""
        for _ in range(1000):
            try:
                client.sendall(b"X: y\r\n")
                answered = client.recv(65536)
                break
            except TimeoutError:
                continue
    assert status_of(answered) == 408


def test_a_connection_without_a_request_is_closed(hasty: HttpFront) -> None:
    with hasty.connect() as client:
        client.sendall(hasty.head("GET /stats HTTP/1.1"))
        answered = read_all(client)
    assert (status_of(answered), answered.count(b"HTTP/1.1")) == (200, 1)


def test_an_answer_that_is_not_read_is_given_up(hasty: HttpFront) -> None:
    hasty.rpc("add", urls=[f"http://127.0.0.1:1/{'x' * 500}"] * 5000, paused=True)
    process = psutil.Process(hasty.process.pid)  # type: ignore[union-attr]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", hasty.port))
        client.sendall(hasty.head("GET /tasks?limit=5000 HTTP/1.1"))
        wait_until(lambda: len(process.net_connections("tcp")) == 2, "it is connected")
        wait_until(lambda: len(process.net_connections("tcp")) == 1, "it is given up")
    assert hasty.get("/stats").status == 200


def test_a_small_answer_is_sent_in_one_piece(front: HttpFront) -> None:
    """In several, each would wait for the client to confirm the one before."""
    with front.connect() as client:
        client.sendall(front.head("GET /stats HTTP/1.1"))
        assert client.recv(65536).endswith(b"}\n")


def test_a_client_that_reads_nothing_does_not_keep_others_waiting(front: HttpFront) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", front.port))
            client.sendall(front.head("GET /history?limit=5000 HTTP/1.1") * 50)
        assert front.get("/stats").status == 200


def test_who_has_no_token_can_not_keep_others_out(front: HttpFront) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(front.connect())
        assert front.get("/stats").status == 200
        assert len(psutil.Process(front.process.pid).net_connections("tcp")) < 150  # type: ignore[union-attr]


def test_without_descriptors_it_waits_for_some(make_daemon: MakeDaemon, make_front: MakeFront, web: User) -> None:
    front = make_front(make_daemon().start()).start()
    pid = front.process.pid  # type: ignore[union-attr]
    used = psutil.Process(pid).num_fds()
    soft, hard = web.do(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE))

    def allow(descriptors: int) -> None:
        web.do(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard)))

    with front.connect() as waiting:
        # One more, for this client, and none for the daemon's connection.
        allow(used + 1)
        waiting.sendall(front.head("GET /stats HTTP/1.1", "Connection: close"))
        answered = read_all(waiting)
        assert (status_of(answered), b'"busy"' in answered) == (503, True)
    allow(used)
    with front.connect() as waiting:
        wait_until(lambda: "can't accept connections" in front.log(), "it notices")
        allow(soft)
        waiting.sendall(front.head("GET /stats HTTP/1.1", "Connection: close"))
        assert status_of(read_all(waiting)) == 200


def test_many_clients_at_once_are_all_answered(front: HttpFront) -> None:
    clients = []
    try:
        for _ in range(100):
            client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
            client.request("GET", "/stats", headers=front.bearer)
            clients.append(client)
        assert [read_reply(client.getresponse()).status for client in clients] == [200] * 100
    finally:
        for client in clients:
            client.close()


def test_clients_that_left_leave_nothing_behind(front: HttpFront, shared: Daemon) -> None:
    assert front.process is not None
    front.get("/stats")
    process = psutil.Process(front.process.pid)
    wait_until(lambda: len(process.net_connections("tcp")) == 1, "others are gone")
    before = process.num_fds()
    for number in range(50):
        with front.connect() as client:
            client.sendall(front.head("GET /events HTTP/1.1")[: 20 + number])
    wait_until(lambda: process.num_fds() <= before, "all is closed", seen=lambda: os.listdir(f"/proc/{process.pid}/fd"))
