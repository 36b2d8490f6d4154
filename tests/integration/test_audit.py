"""Who changed what, from which process: in a task's log, in the history, in the daemon's log; and who sees it."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.accounts import User, accounts
from support.daemon import Daemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.rpc import Refused, Wire

ADMINS = f"adlt-admins-{secrets.token_hex(3)}"
CONFIG = f"""
[transfer]
min_free_bytes = 0
connections = 1
[access]
admin_group = "{ADMINS}"
"""
NOWHERE = "http://127.0.0.1:1/x"


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob", "admin", groups={"admin": [ADMINS]}) as made:
        yield made


@pytest.fixture
def daemon(make_daemon: Any) -> Daemon:
    made: Daemon = make_daemon(config=CONFIG).start()
    return made


def history(daemon: Daemon, asker: User, **params: Any) -> list[dict[str, Any]]:
    events = asker.call(daemon.socket, "history", **params)["events"]
    assert isinstance(events, list)
    return events


def refused(asker: User, daemon: Daemon, method: str, **params: Any) -> str:
    with pytest.raises(Refused) as refusal:
        asker.call(daemon.socket, method, **params)
    return refusal.value.code


def test_every_change_of_a_task_is_in_its_log_with_who_and_from_which_process(
    daemon: Daemon, users: dict[str, User]
) -> None:
    alice, admin = users["alice"], users["admin"]

    def changes() -> list[int]:
        with Wire(daemon.socket) as wire:
            [task_id] = wire.call("add", urls=[NOWHERE], dir="/tmp", paused=True)["ids"]
            wire.call("priority", id=task_id, priority=7)
            wire.call("limit", ids=[task_id], rate_bps=1000)
            wire.call("set_url", id=task_id, url=NOWHERE + "2")
            return [task_id, os.getpid()]

    task_id, pid = alice.do(changes)
    admin.call(daemon.socket, "cancel", ids=[task_id])
    alice.call(daemon.socket, "retry", ids=[task_id])
    events = alice.call(daemon.socket, "log", id=task_id)["events"]
    asked = [(event["event"], event["actor"]) for event in events if event["actor"] is not None]
    by_alice = [(event, alice.name) for event in ("add", "priority", "limit", "set_url")]
    assert asked == [*by_alice, ("cancel", admin.name), ("retry", alice.name)]
    assert {event["pid"] for event in events[:4]} == {pid}
    assert {event["actor_uid"] for event in events[:4]} == {alice.uid}
    assert all("python" in event["program"] for event in events[:4])
    assert next(event["detail"] for event in events if event["event"] == "priority") == "7"
    assert f"by {admin.name} (" in daemon.ok("log", str(task_id))


def test_what_a_worker_must_let_go_of_first_is_in_the_log_with_who_asked(
    daemon: Daemon, users: dict[str, User], place: Path
) -> None:
    alice = users["alice"]
    with MisbehavingServer() as server:
        url = server.serve("/held", Case(body=bytes(500_000), hold_after=100_000))
        [task_id] = alice.call(daemon.socket, "add", urls=[url])["ids"]
        daemon.await_state(task_id, "downloading")
        alice.call(daemon.socket, "pause", ids=[task_id])
        daemon.await_state(task_id, "paused")
    [paused] = [event for event in alice.call(daemon.socket, "log", id=task_id)["events"] if event["event"] == "pause"]
    assert paused["actor"] == alice.name


def test_a_finished_task_s_path_and_size_are_in_the_history_and_in_the_daemon_s_log(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    alice = users["alice"]
    served = nginx.file("audit/done.bin", 1234)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url])["ids"]
    dest = daemon.await_state(task_id, "finished")["dest"]
    finish, add = history(daemon, alice)
    assert (finish["event"], finish["id"], finish["actor"]) == ("finish", task_id, None)
    assert finish["detail"] == f"{dest}, 1234 bytes"
    assert (add["event"], add["actor"], add["owner"], add["url"]) == ("add", alice.name, alice.name, served.url)
    assert f"task {task_id} is finished: {dest}, 1234 bytes" in daemon.log()
    assert f"add by {alice.name} (uid {alice.uid}, process {add['pid']}, {add['program']}): task {task_id}\n" in (
        daemon.log()
    )


def test_a_sha256_that_was_checked_is_in_the_history_and_in_the_daemon_s_log(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    alice = users["alice"]
    served = nginx.file("audit/checked.bin", 1234)
    checksums = [f"sha256={served.sha256.upper()}"]
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url], checksums=checksums)["ids"]
    dest = daemon.await_state(task_id, "finished")["dest"]
    words = f"{dest}, 1234 bytes, sha256 {served.sha256}"
    assert history(daemon, alice)[0]["detail"] == words
    assert alice.call(daemon.socket, "log", id=task_id)["events"][-1]["detail"] == words
    assert f"task {task_id} is finished: {words}\n" in daemon.log()


def test_a_user_sees_their_own_history_alone_and_administrators_see_all(daemon: Daemon, users: dict[str, User]) -> None:
    alice, bob, admin = users["alice"], users["bob"], users["admin"]
    [hers] = alice.call(daemon.socket, "add", urls=[NOWHERE], paused=True)["ids"]
    [his] = bob.call(daemon.socket, "add", urls=[NOWHERE], paused=True)["ids"]
    admin.call(daemon.socket, "cancel", ids=[hers])
    assert [(event["event"], event["id"], event["actor"]) for event in history(daemon, alice)] == [
        ("cancel", hers, admin.name),
        ("add", hers, alice.name),
    ]
    assert [event["id"] for event in history(daemon, bob)] == [his]
    assert refused(bob, daemon, "history", all=True) == "not_allowed"
    assert refused(bob, daemon, "history", user=alice.name) == "not_allowed"
    assert refused(bob, daemon, "history", user="no-such-user") == "not_allowed"
    assert [event["id"] for event in history(daemon, admin, all=True)] == [hers, his, hers]
    assert [event["id"] for event in history(daemon, admin, user=bob.name)] == [his]
    assert [event["id"] for event in history(daemon, admin, all=True, limit=1)] == [hers]
    assert history(daemon, admin, all=True, since=1e10) == []


def test_changes_of_queues_and_of_the_daemon_are_in_the_history(daemon: Daemon, users: dict[str, User]) -> None:
    alice, admin = users["alice"], users["admin"]
    alice.call(daemon.socket, "pause", seconds=5)
    alice.call(daemon.socket, "resume")
    alice.call(daemon.socket, "limit", rate_bps=5000)
    alice.call(daemon.socket, "clear")
    admin.call(daemon.socket, "max_tasks", max_tasks_num=3)
    admin.call(daemon.socket, "pause", all=True)
    assert [(event["event"], event["id"]) for event in history(daemon, alice)] == [
        ("limit", None),
        ("lift_hold", None),
        ("hold", None),
    ]
    newest = history(daemon, admin, all=True)[:2]
    assert [(event["event"], event["uid"], event["detail"]) for event in newest] == [
        ("hold", -1, "until resume"),
        ("max_tasks", -1, "3"),
    ]
    shown = daemon.ok("history", "--all", "-n", "2").splitlines()
    assert ["the daemon" in line and f"by {admin.name} (" in line for line in shown] == [True, True]


def test_the_history_survives_a_crash_and_says_since_when(daemon: Daemon) -> None:
    task_id = daemon.add_one("--paused", NOWHERE)
    daemon.kill()
    daemon.start()
    [event] = daemon.json("history", "--since", "1h")["events"]
    assert (event["event"], event["id"], event["actor"]) == ("add", task_id, "root")
    assert daemon.json("history", "--since", "2100-01-01")["events"] == []
    refusal = daemon.autodl("history", "--since", "soon")
    assert (refusal.returncode, "is no time such as" in refusal.stderr) == (2, True)


def test_no_url_and_no_secret_is_in_the_daemon_s_log(daemon: Daemon, users: dict[str, User]) -> None:
    alice = users["alice"]
    params = {"urls": ["http://me:hunter2@127.0.0.1:1/x?token=sesame"], "headers": ["Cookie: opensesame"]}
    [task_id] = alice.call(daemon.socket, "add", paused=True, **params)["ids"]
    alice.call(daemon.socket, "set_url", id=task_id, url="http://me:hunter3@127.0.0.1:1/y?token=sesame")
    alice.call(daemon.socket, "cancel", ids=[task_id])
    for secret in ("hunter", "sesame", "token"):
        assert secret not in daemon.log()
    assert "hunter" not in str(history(daemon, alice))


def test_other_users_tasks_do_not_exist_in_any_method_and_numbers_tell_nothing_of_them(
    daemon: Daemon, users: dict[str, User]
) -> None:
    alice, bob = users["alice"], users["bob"]
    first = alice.call(daemon.socket, "add", urls=[NOWHERE] * 3, paused=True)["ids"]
    bob.call(daemon.socket, "add", urls=[NOWHERE] * 500, paused=True)
    second = alice.call(daemon.socket, "add", urls=[NOWHERE] * 2, paused=True)["ids"]
    ids = first + second
    assert [later - earlier for earlier, later in itertools.pairwise(ids)] == [1000] * 4
    asks: dict[str, dict[str, Any]] = {method: {"id": ids[0]} for method in ("status", "log", "explain")} | {
        method: {"ids": [ids[0]]} for method in ("pause", "resume", "cancel", "retry", "watch")
    }
    asks["priority"] = {"id": ids[0], "priority": 1}
    asks["set_url"] = {"id": ids[0], "url": NOWHERE}
    asks["limit"] = {"ids": [ids[0]], "rate_bps": 1}
    free = max(ids) + 1_000_000
    for method, params in asks.items():
        messages = []
        for task_id in (ids[0], free):
            changed = {**params, **({"id": task_id} if "id" in params else {"ids": [task_id]})}
            with pytest.raises(Refused) as refusal:
                bob.call(daemon.socket, method, **changed)
            assert refusal.value.code == "no_such_task", method
            messages.append(refusal.value.message.replace(str(task_id), "N"))
        assert messages[0] == messages[1], "neither is told from the other by words"
    assert bob.call(daemon.socket, "stats")["tasks"]["paused"] == 500
