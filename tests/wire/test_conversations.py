"""How a connection behaves: greeting, pipelining, order, limits, slow and rude peers, watching."""

from __future__ import annotations

import contextlib
import json
import socket
import struct

import psutil
import pytest
from support.daemon import Daemon, MakeDaemon
from support.nginx import Nginx
from support.rpc import Refused, Wire, request
from support.waiting import wait_until

MAX_LINE_BYTES = 4 * 1024 * 1024


def test_the_first_line_names_protocol_and_version(target: Daemon) -> None:
    with target.connect() as wire:
        assert wire.greeting["method"] == "hello"
        assert wire.greeting["params"]["protocol"] == 1
        assert isinstance(wire.greeting["params"]["version"], str)


def test_a_thousand_adds_in_one_write_are_answered_in_order(fresh: Daemon) -> None:
    lines = [request(n, "add", urls=[f"http://127.0.0.1:1/{n}"], dir="/tmp", paused=True) for n in range(1000)]
    with fresh.connect() as wire:
        wire.send(b"".join(lines))
        answers = [wire.reply() for _ in range(1000)]
    assert [answer["id"] for answer in answers] == list(range(1000))
    assert [answer["result"]["ids"] for answer in answers] == [[n + 2] for n in range(1000)]
    assert len(fresh.tasks()) == 1001


def test_a_question_after_a_change_sees_it(fresh: Daemon) -> None:
    with fresh.connect() as wire:
        data = b""
        for n in range(50):
            data += request(f"add-{n}", "add", urls=["http://127.0.0.1:1/x"], dir="/tmp", paused=True)
            data += request(f"status-{n}", "status", id=n + 2)
        wire.send(data)
        for n in range(50):
            assert wire.reply()["result"]["ids"] == [n + 2]
            assert wire.reply()["result"]["id"] == n + 2


def test_a_mix_of_good_and_bad_lines_is_answered_line_by_line(target: Daemon) -> None:
    with target.connect() as wire:
        for n in range(100):
            wire.send(request(n, "max_tasks") if n % 2 else b"nonsense\n")
        answers = [wire.reply() for _ in range(100)]
    assert [("result" in answer) for answer in answers] == [bool(n % 2) for n in range(100)]


def test_the_same_id_twice_is_answered_twice(target: Daemon) -> None:
    with target.connect() as wire:
        wire.send(request("same", "max_tasks") * 2)
        assert [wire.reply()["id"] for _ in range(2)] == ["same", "same"]


def test_empty_lines_are_skipped(target: Daemon) -> None:
    with target.connect() as wire:
        wire.send(b"\n\n \n\r\n" + request(1, "max_tasks"))
        assert wire.reply()["id"] == 1


def test_a_request_may_come_byte_by_byte(target: Daemon) -> None:
    with target.connect() as wire:
        for byte in request(1, "max_tasks"):
            wire.send(bytes([byte]))
        assert wire.reply()["id"] == 1


def test_the_longest_line_is_taken_and_one_byte_more_is_refused_and_ends_the_connection(target: Daemon) -> None:
    line = request(1, "max_tasks").rstrip(b"\n")
    with target.connect() as wire:
        wire.send(line + b" " * (MAX_LINE_BYTES - len(line) - 1) + b"\n")
        assert wire.reply()["result"] == {"max_tasks_num": 10}
    with target.connect() as wire:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(b"x" * MAX_LINE_BYTES + b"\n")
        assert wire.reply()["error"]["data"]["code"] == "line_too_long"
        assert wire.read() is None


def test_a_line_without_an_end_is_refused_before_it_fills_memory(target: Daemon) -> None:
    with target.connect() as wire, pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(4096):
            wire.send(b"x" * 65536)
    with target.connect() as wire:
        assert wire.call("max_tasks")


def test_half_a_line_and_then_the_end_is_nobody_s_trouble(target: Daemon) -> None:
    with target.connect() as wire:
        wire.send(request(1, "max_tasks") + b'{"jsonrpc":"2.0","id":2,"meth')
        wire.finish_sending()
        assert wire.reply()["id"] == 1
        assert wire.read() is None


def test_all_that_was_asked_before_the_end_is_still_answered(fresh: Daemon) -> None:
    with fresh.connect() as wire:
        for n in range(300):
            wire.send(request(n, "add", urls=["http://127.0.0.1:1/x"], dir="/tmp", paused=True))
        wire.finish_sending()
        assert [wire.reply()["id"] for _ in range(300)] == list(range(300))
        assert wire.read() is None


def test_a_reset_connection_is_nobody_s_trouble(target: Daemon) -> None:
    for _ in range(20):
        peer = socket.socket(socket.AF_UNIX)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.connect(str(target.socket))
        peer.sendall(request(1, "stats") * 10)
        peer.close()
    with target.connect() as wire:
        assert wire.call("max_tasks")


def test_a_client_that_reads_nothing_hurts_only_itself(fresh: Daemon) -> None:
    with fresh.connect() as wire:
        wire.call("add", urls=["http://127.0.0.1:1/x"] * 2000, dir="/tmp", paused=True)
    with socket.socket(socket.AF_UNIX) as greedy:
        greedy.connect(str(fresh.socket))
        greedy.setblocking(False)
        asked = request(1, "list", limit=5000) * 100
        sent = 0
        with pytest.raises(BlockingIOError):  # noqa: PT012
            while True:
                sent += greedy.send(asked)
        with fresh.connect() as wire:
            assert wire.call("status", id=1)["id"] == 1
            assert len(wire.call("list", limit=5000)["tasks"]) == 2001
        # Nor does it fill memory with answers that nobody reads: each of these is over 1 MB.
        assert psutil.Process(fresh.pid).memory_info().rss < 250_000_000


def test_two_hundred_connections_at_once_are_served(target: Daemon) -> None:
    wires = [target.connect() for _ in range(200)]
    try:
        for wire in wires:
            wire.ask("max_tasks")
        assert [wire.reply()["result"] for wire in wires] == [{"max_tasks_num": 10}] * 200
    finally:
        for wire in wires:
            wire.close()


def test_too_many_connections_of_a_user_are_refused_and_the_others_go_on(target: Daemon) -> None:
    wires: list[Wire] = []
    try:
        refused = None
        for _ in range(300):
            wire = target.connect()
            wires.append(wire)
            with contextlib.suppress(BrokenPipeError):  # it is refused by an answer without a question
                wire.ask("max_tasks")
            answer = wire.reply()
            if "error" in answer:
                refused = answer["error"]["data"]["code"]
                break
        assert refused == "busy"
        assert wires[0].call("max_tasks") == {"max_tasks_num": 10}
    finally:
        for wire in wires:
            wire.close()
    wait_until(lambda: _answers(target), "there is room again")


def test_watch_shows_a_task_until_it_is_settled(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon().start()
    served = nginx.file("wire/watched.bin", 1_500_000, rate="500k")
    with daemon.connect() as wire:
        [task_id] = wire.call("add", urls=[served.slow_url], dir=str(daemon.files))["ids"]
        assert wire.call("watch", ids=[task_id]) == {"tasks": 1, "settled": 0}
        states, done = [], []
        for task in wire.tasks():
            assert task["id"] == task_id
            if not states or states[-1] != task["state"]:
                states.append(task["state"])
            if task["state"] == "downloading":
                done.append(task["bytes_done"])
            if task["state"] == "finished":
                break
        assert [state for state in states if state != "enqueued"] == ["downloading", "finished"]
        assert done == sorted(done)
        assert len(set(done)) > 2
        assert wire.call("max_tasks"), "a connection that watches may still ask"


def test_watch_of_everything_shows_tasks_that_come_later(fresh: Daemon) -> None:
    with fresh.connect() as watching, fresh.connect() as wire:
        watching.call("watch")
        [task_id] = wire.call("add", urls=["http://127.0.0.1:1/x"], dir="/tmp", paused=True)["ids"]
        wire.call("cancel", ids=[task_id])
        for task in watching.tasks():
            if (task["id"], task["state"]) == (task_id, "cancelled"):
                break


def test_watch_shows_what_clear_dropped(fresh: Daemon) -> None:
    with fresh.connect() as watching, fresh.connect() as wire:
        wire.call("pause")
        [task_id] = wire.call("add", urls=["http://127.0.0.1:1/x"], dir="/tmp")["ids"]
        watching.call("watch", ids=[task_id])
        assert wire.call("clear") == {"cleared": 1}
        for task in watching.tasks():
            if task["state"] == "cleared":
                break


def test_watch_of_the_whole_queue_shows_what_clear_dropped(fresh: Daemon) -> None:
    with fresh.connect() as watching, fresh.connect() as wire:
        wire.call("pause")
        [task_id] = wire.call("add", urls=["http://127.0.0.1:1/x"], dir="/tmp")["ids"]
        watching.call("watch")
        assert wire.call("clear") == {"cleared": 1}
        # A later change comes through, so the earlier one would have, too.
        wire.call("priority", id=1, priority=3)
        wire.call("cancel", ids=[1])
        seen = []
        for task in watching.tasks():
            seen.append((task["id"], task["state"]))
            if seen[-1] == (1, "cancelled"):
                break
        assert (task_id, "cleared") in seen


def test_a_slow_watcher_sees_the_end_of_all_and_does_not_slow_the_rest(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon().start()
    urls = [nginx.file(f"wire/slow-{n}", 100).url for n in range(300)]
    with daemon.connect() as slow, daemon.connect() as wire:
        slow.call("watch")
        for lot in range(4):
            ids = wire.call("add", urls=urls, dir=str(daemon.files / str(lot)))["ids"]
            daemon.await_settled(ids)
        # Only now does it read.
        last: dict[int, str] = {}
        for task in slow.tasks():
            last[task["id"]] = task["state"]
            if len(last) == 1200 and set(last.values()) == {"finished"}:
                break


def test_a_wrong_state_is_refused_with_its_code(fresh: Daemon) -> None:
    with fresh.connect() as wire:
        with pytest.raises(Refused) as refused:
            wire.call("retry", ids=[1])
        assert refused.value.code == "wrong_state"


def test_every_reply_is_one_line_of_ascii(fresh: Daemon) -> None:
    with fresh.connect() as wire:
        wire.call("add", urls=["http://h/\u00e4\u2028\U0001f600"], dir="/tmp", paused=True)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(fresh.socket))
        peer.sendall(request("\u00e4", "list"))
        peer.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := peer.recv(65536):
            data += chunk
    lines = data.splitlines()
    assert data.isascii()
    assert len(lines) == 2
    assert json.loads(lines[1])["id"] == "\u00e4"


def _answers(daemon: Daemon) -> bool:
    try:
        with daemon.connect() as wire:
            return bool(wire.call("max_tasks"))
    except (Refused, ConnectionError):
        return False
