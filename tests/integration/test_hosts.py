"""Hosts: at most `connections_per_host` connections over all tasks, none while one asked to be left alone."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.waiting import wait_until

LARGE = bytes(range(256)) * 2000


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def other() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def config(transfer: str) -> str:
    return QUICK.replace("connections = 1\n", f"{transfer}\n")


def held_files(server: MisbehavingServer, count: int) -> list[str]:
    """Serve files that stop in the middle until the server is told to go on."""
    return [server.serve(f"/held-{n}", Case(body=LARGE, hold_after=100_000, ranges=False)) for n in range(count)]


def await_held(server: MisbehavingServer, count: int) -> None:
    for _ in range(count):
        assert server.held.acquire(timeout=45)


def await_explained(daemon: Daemon, task_id: int, words: str) -> None:
    """Wait for an explanation: what the daemon plans follows a moment after what a server sees."""

    def explained() -> bool:
        return words in daemon.ok("explain", str(task_id))

    wait_until(explained, words, seen=lambda: daemon.ok("explain", str(task_id)))


def test_all_tasks_together_open_no_more_connections_to_a_host_than_its_limit(
    make_daemon: MakeDaemon, server: MisbehavingServer
) -> None:
    daemon = make_daemon(config=config("connections = 1\nconnections_per_host = 3")).start()
    ids = daemon.add(*held_files(server, 7))
    await_held(server, 3)
    await_explained(daemon, ids[-1], "3 are in use, and 3 are the most")
    assert daemon.json("stats")["tasks"]["downloading"] <= 3
    server.release()
    assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}
    assert server.most_answers == 3


def test_a_task_that_may_use_several_connections_shares_them_with_those_that_come(
    make_daemon: MakeDaemon, server: MisbehavingServer
) -> None:
    daemon = make_daemon(config=config("connections = 4\nconnections_per_host = 4")).start()
    ids = daemon.add(*held_files(server, 1))
    await_held(server, 1)
    ids += daemon.add(*[server.serve(f"/more-{n}", Case(body=LARGE, hold_after=1000)) for n in range(3)])
    await_held(server, 3)
    server.release()
    assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}
    assert server.most_answers <= 4


def test_a_full_host_keeps_no_task_of_another_one_waiting(
    make_daemon: MakeDaemon, server: MisbehavingServer, other: MisbehavingServer
) -> None:
    daemon = make_daemon(config=config("connections = 1\nconnections_per_host = 1")).start()
    ids = daemon.add(*held_files(server, 1), *[server.serve(f"/small-{n}", Case(body=b"x")) for n in range(300)])
    await_held(server, 1)
    elsewhere = daemon.add_one(other.serve("/elsewhere", Case(body=b"y")))
    assert daemon.await_state(elsewhere, "finished")["attempts"] == 1
    server.release()
    assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}


def test_a_worker_that_is_killed_leaves_its_connections_to_others(
    make_daemon: MakeDaemon, server: MisbehavingServer
) -> None:
    daemon = make_daemon(config=config("connections = 1\nconnections_per_host = 1")).start()
    first, second = daemon.add(*held_files(server, 2))
    await_held(server, 1)
    for _ in range(3):
        [worker] = daemon.family().workers
        worker.kill()
        await_held(server, 1)
    server.release()
    assert {task["state"] for task in daemon.await_settled([first, second]).values()} == {"finished"}
    assert server.most_answers == 1


def test_a_lower_limit_counts_at_once_and_a_higher_one_too(make_daemon: MakeDaemon, server: MisbehavingServer) -> None:
    daemon = make_daemon(config=config("connections = 1\nconnections_per_host = 1")).start()
    ids = daemon.add(*held_files(server, 4))
    await_held(server, 1)
    daemon.config.write_text(config("connections = 1\nconnections_per_host = 4"))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    await_held(server, 3)
    daemon.config.write_text(config("connections = 1\nconnections_per_host = 2"))
    daemon.process.send_signal(signal.SIGHUP)
    late = daemon.add_one(server.serve("/late", Case(body=b"x")))
    await_explained(daemon, late, "4 are in use, and 2 are the most")
    server.release()
    assert {task["state"] for task in daemon.await_settled([*ids, late]).values()} == {"finished"}


def test_a_host_that_asks_to_be_left_alone_is_for_all_its_tasks(
    make_daemon: MakeDaemon, server: MisbehavingServer, other: MisbehavingServer
) -> None:
    daemon = make_daemon().start()
    busy = Case(status="503 Service Unavailable", headers=("Retry-After: 3000",), body=b"not now")
    asked = daemon.add_one(server.serve("/busy", busy, Case(body=b"now")))
    daemon.await_state(asked, "retrying")
    waiting = daemon.add_one(server.serve("/waiting", Case(body=b"x")))
    elsewhere = daemon.add_one(other.serve("/elsewhere", Case(body=b"y")))
    daemon.await_state(elsewhere, "finished")
    assert daemon.status(waiting)["state"] == "enqueued"
    assert "asked to be left alone for" in daemon.ok("explain", str(waiting))
    assert [request.path for request in server.requests] == ["/busy"]
    # Whoever says so wants it now.
    daemon.ok("retry", str(asked))
    assert {task["state"] for task in daemon.await_settled([asked, waiting]).values()} == {"finished"}


def test_who_redirects_to_a_host_that_asks_to_be_left_alone_is_not_left_alone(
    make_daemon: MakeDaemon, server: MisbehavingServer, other: MisbehavingServer
) -> None:
    daemon = make_daemon().start()
    busy = Case(status="503 Service Unavailable", headers=("Retry-After: 3000",), body=b"not now")
    target = other.serve("/busy", busy)
    moved = daemon.add_one(server.serve("/moved", Case(status="302 Found", headers=(f"Location: {target}",))))
    task = daemon.await_state(moved, "retrying")
    assert task["error"]["code"] == "server_busy"
    daemon.await_state(daemon.add_one(server.serve("/mine", Case(body=b"x"))), "finished")
    nearby = server.serve("/near", busy)
    near = daemon.add_one(server.serve("/moved-here", Case(status="302 Found", headers=(f"Location: {nearby}",))))
    daemon.await_state(near, "retrying")
    waiting = daemon.add_one(server.serve("/waiting", Case(body=b"x")))
    assert "asked to be left alone for" in daemon.ok("explain", str(waiting))


def test_a_host_is_asked_again_when_its_time_has_come(make_daemon: MakeDaemon, server: MisbehavingServer) -> None:
    daemon = make_daemon().start()
    busy = Case(status="429 Too Many Requests", headers=("Retry-After: 1",), body=b"not now")
    asked = daemon.add_one(server.serve("/busy", busy, Case(body=b"now")))
    wait_until(lambda: server.requests, "it is asked")
    waiting = daemon.add_one(server.serve("/waiting", Case(body=b"x")))
    assert {task["state"] for task in daemon.await_settled([asked, waiting]).values()} == {"finished"}
    assert [event["event"] for event in daemon.json("log", str(asked))["events"]].count("postpone") == 1


def test_a_server_error_without_a_time_holds_nobody(make_daemon: MakeDaemon, server: MisbehavingServer) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n").start()
    asked = daemon.add_one(server.serve("/busy", Case(status="503 Service Unavailable", body=b"not now")))
    daemon.await_state(asked, "retrying")
    daemon.await_state(daemon.add_one(server.serve("/fine", Case(body=b"x"))), "finished")


def test_what_workers_were_handed_ahead_of_a_host_that_asks_to_be_left_alone_waits_too(
    make_daemon: MakeDaemon, server: MisbehavingServer, other: MisbehavingServer
) -> None:
    daemon = make_daemon("4").start()
    small = Case(body=b"x" * 100, rate_bps=10_000)
    busy = Case(status="503 Service Unavailable", headers=("Retry-After: 3000",), body=b"not now")
    urls = [server.serve(f"/f{number}", busy if number == 200 else small) for number in range(600)]
    asked = daemon.add(*urls)[200]
    elsewhere = daemon.add(*(other.serve(f"/g{number}", small) for number in range(20)))
    daemon.await_state(asked, "retrying")
    daemon.await_settled(elsewhere)

    def states() -> Counter[str]:
        return Counter(task["state"] for task in daemon.tasks())

    wait_until(lambda: states()["enqueued"] == 600 - len(server.requests), "what has begun is over", seen=states)
    paths = [request.path for request in server.requests]
    assert len(paths) - paths.index("/f200") < 200, "but for some that were under way, or on their way"
