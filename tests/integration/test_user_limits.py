"""What one user may have: running, queued, connections, bytes of a day; from [limits], their own table or a group's."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.rpc import Refused
from support.waiting import wait_until

NOWHERE = "http://127.0.0.1:1/x"

LARGE = bytes(range(256)) * 2000
HELD = Case(body=LARGE, hold_after=100_000, ranges=False)
STUDENTS = f"adlt-students-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob", groups={"bob": [STUDENTS]}) as made:
        yield made


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def add(daemon: Daemon, user: User, place: Path, *urls: str, **options: Any) -> list[int]:
    folder = place / f"of-{user.name}"
    folder.mkdir(exist_ok=True)
    os.chown(folder, user.uid, user.gid)
    ids = user.call(daemon.socket, "add", urls=urls, dir=str(folder), **options)["ids"]
    assert isinstance(ids, list)
    return ids


def reload(daemon: Daemon, config: str) -> None:
    before = daemon.log().count("is reloaded")
    daemon.config.write_text(config)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count("is reloaded") > before, "it is reloaded", seen=daemon.log_end)


def await_explained(daemon: Daemon, user: User, task_id: int, words: str) -> str:
    def reason() -> str:
        return str(user.call(daemon.socket, "explain", id=task_id)["reason"])

    wait_until(lambda: words in reason(), words, seen=reason)
    return reason()


def test_a_user_has_no_more_running_than_their_own_table_says_and_a_reload_gives_more(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice = users["alice"]
    daemon = make_daemon(config=f"{QUICK}\n[limits]\nrunning = 3\n[users.{alice.name}]\nrunning = 1\n").start()
    ids = add(daemon, alice, place, *[server.serve("/held", HELD)] * 4)
    assert server.held.acquire(timeout=45)
    await_explained(daemon, alice, ids[2], "1 are running, and 1 are the most that you may have (running); 1 come")
    reload(daemon, f"{QUICK}\n[limits]\nrunning = 3\n")
    for _ in range(2):
        assert server.held.acquire(timeout=45)
    await_explained(daemon, alice, ids[3], "3 are running, and 3 are the most")
    server.release()
    assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}
    assert server.most_answers == 3


def test_a_group_s_table_is_for_who_is_in_it(make_daemon: MakeDaemon, users: dict[str, User], place: Path) -> None:
    alice, bob = users["alice"], users["bob"]
    config = f"{QUICK}\n[groups.{STUDENTS}]\nqueued = 2\n"
    daemon = make_daemon(config=config).start()
    url = "http://127.0.0.1:1/x"
    add(daemon, alice, place, *[url] * 3, paused=True)
    add(daemon, bob, place, *[url] * 2, paused=True)
    with pytest.raises(Refused) as refusal:
        add(daemon, bob, place, url, paused=True)
    assert refusal.value.code == "queue_full"
    assert "2 is the most" in refusal.value.message
    reload(daemon, config + f"[users.{bob.name}]\nqueued = 3\n")
    add(daemon, bob, place, url, paused=True)


def test_retry_queues_no_more_than_may_be_and_root_s_is_not_counted(
    make_daemon: MakeDaemon, users: dict[str, User], place: Path
) -> None:
    alice = users["alice"]
    daemon = make_daemon(config=f"{QUICK}\n[limits]\nqueued = 3\n").start()
    ids: list[int] = []
    for _ in range(3):
        more = add(daemon, alice, place, *[NOWHERE] * 2, paused=True)
        alice.call(daemon.socket, "cancel", ids=more)
        ids += more
    alice.call(daemon.socket, "pause")
    alice.call(daemon.socket, "retry", ids=ids[:2])
    with pytest.raises(Refused) as refused:
        alice.call(daemon.socket, "retry", ids=ids[2:4])
    assert refused.value.code == "queue_full"
    assert daemon.status(ids[2])["state"] == daemon.status(ids[3])["state"] == "cancelled", "all or none"
    alice.call(daemon.socket, "retry", ids=ids[2:3])
    with pytest.raises(Refused):
        add(daemon, alice, place, NOWHERE)
    daemon.ok("retry", str(ids[4]))
    assert daemon.status(ids[4])["state"] == "enqueued"


def test_of_a_list_that_is_more_than_may_be_queued_add_prints_every_task_that_is(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(config=f"{QUICK}\n[limits]\nqueued = 6000\n").start()
    done = daemon.autodl("add", "--paused", "-i", "-", stdin="http://127.0.0.1:1/x\n" * 10_500)
    assert done.returncode == 1
    assert [int(line) for line in done.stdout.split()] == [task["id"] for task in daemon.tasks()]
    said, error = done.stderr.splitlines()
    assert said == "autodl: only 5500 URLs of 10500 could be queued (number 1 to 5000, 10001 to 10500 of them)"
    assert "6000 is the most" in error


def test_of_a_list_that_is_more_than_may_be_queued_get_says_what_goes_on(
    make_daemon: MakeDaemon, server: MisbehavingServer
) -> None:
    daemon = make_daemon(config=f"{QUICK}\n[limits]\nqueued = 6000\n").start()
    done = daemon.autodl("get", "-i", "-", stdin=(server.serve("/held", HELD) + "\n") * 10_500)
    assert (done.returncode, done.stdout) == (1, "")
    first, last = daemon.tasks()[0]["id"], daemon.tasks()[-1]["id"]
    said, error = done.stderr.splitlines()
    assert "only 5500 URLs of 10500 could be queued" in said
    assert f"; the downloads {first} to {last} go on in the background; " in said
    assert "6000 is the most" in error


def test_all_tasks_of_a_user_together_open_no_more_connections_than_they_may(
    make_daemon: MakeDaemon, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]
    config = f"[transfer]\nmin_free_bytes = 0\nconnections = 1\n[users.{alice.name}]\nconnections = 2\n"
    daemon = make_daemon(config=config).start()
    with MisbehavingServer() as one, MisbehavingServer() as other:
        urls = [server.serve(f"/held-{n}", HELD) for n in range(2) for server in (one, other)]
        ids = add(daemon, alice, place, *urls)
        assert one.held.acquire(timeout=45)
        assert other.held.acquire(timeout=45)
        await_explained(daemon, alice, ids[3], "2 are in use, and 2 are the most that you may have (connections)")
        theirs = add(daemon, bob, place, *urls)
        for server in (one, other):
            for _ in range(2):
                assert server.held.acquire(timeout=45)
        assert one.most_answers + other.most_answers == 6
        for server in (one, other):
            server.release()
        assert {task["state"] for task in daemon.await_settled([*ids, *theirs]).values()} == {"finished"}


def test_who_has_taken_the_bytes_of_the_day_waits_for_the_next_one(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]
    daemon = make_daemon(config=f"{QUICK}\n[limits]\nbytes_per_day = 100000\n").start()
    [first] = add(daemon, alice, place, server.serve("/large", Case(body=LARGE[:150_000])))
    daemon.await_state(first, "finished")
    [second] = add(daemon, alice, place, server.serve("/small", Case(body=b"x")))
    reason = await_explained(daemon, alice, second, "It waits for 0:00 UTC")
    assert "all 100000 bytes of today are taken (bytes_per_day)" in reason
    [other] = add(daemon, bob, place, server.serve("/other", Case(body=b"y")))
    daemon.await_state(other, "finished")
    assert daemon.status(second)["state"] == "enqueued"
    # Another day has begun: what was taken on this one was on the day before.
    daemon.stop()
    with sqlite3.connect(daemon.state_dir / "queue.db") as queue:
        queue.execute("UPDATE traffic SET day = ?", (int(time.time()) // 86400 - 1,))
    daemon.start()
    daemon.await_state(second, "finished")


def test_a_download_that_is_under_way_is_set_back_when_the_bytes_of_the_day_are_taken(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice = users["alice"]
    daemon = make_daemon(config=f"{QUICK}\n[users.{alice.name}]\nbytes_per_day = 200000\n").start()
    served = server.serve("/endless", Case(body=LARGE * 4, hold_after=300_000, etag='"1"'))
    [task_id] = add(daemon, alice, place, served)
    await_explained(daemon, alice, task_id, "It waits for 0:00 UTC")
    task = daemon.status(task_id)
    assert (task["state"], task["attempts"], task["error"]) == ("enqueued", 1, None)
    assert task["bytes_done"] > 0, "what has come is kept"
    reload(daemon, QUICK)
    server.release()
    daemon.await_state(task_id, "finished")


def test_a_number_that_was_set_at_run_time_outlives_the_daemon_until_the_file_says_another(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(config="max_tasks_num = 5\n" + QUICK).start()
    assert daemon.json("max-tasks", "7") == {"max_tasks_num": 7}
    daemon.stop()
    daemon.start()
    assert daemon.json("max-tasks") == {"max_tasks_num": 7}
    reload(daemon, "max_tasks_num = 5\n" + QUICK + "\n# a remark\n")
    assert daemon.json("max-tasks") == {"max_tasks_num": 7}
    reload(daemon, "max_tasks_num = 4\n" + QUICK)
    assert daemon.json("max-tasks") == {"max_tasks_num": 4}
    daemon.stop()
    daemon.start()
    assert daemon.json("max-tasks") == {"max_tasks_num": 4}


def test_a_number_on_the_command_line_counts_at_each_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("3").start()
    assert daemon.json("max-tasks", "7") == {"max_tasks_num": 7}
    daemon.stop()
    daemon.start()
    assert daemon.json("max-tasks") == {"max_tasks_num": 3}
