"""Several users, one daemon: whose task is the next one, whatever the others have queued."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.waiting import NeverCame, wait_until

LARGE = bytes(range(256)) * 1000
HELD = Case(body=LARGE, hold_after=50_000, ranges=False)


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob", "carol") as made:
        yield made


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def folder_of(user: User, place: Path) -> str:
    folder = place / f"of-{user.name}"
    folder.mkdir(exist_ok=True)
    os.chown(folder, user.uid, user.gid)
    return str(folder)


def add(daemon: Daemon, user: User, place: Path, *urls: str) -> list[int]:
    ids = user.call(daemon.socket, "add", urls=urls, dir=folder_of(user, place))["ids"]
    assert isinstance(ids, list)
    return ids


def asked_for(server: MisbehavingServer) -> list[str]:
    return [request.line.split()[1] for request in server.requests]


def await_held(server: MisbehavingServer, count: int) -> None:
    for _ in range(count):
        assert server.held.acquire(timeout=45)


def running_of(daemon: Daemon, user: User) -> list[int]:
    tasks = user.call(daemon.socket, "list", states=["downloading"])["tasks"]
    return [task["id"] for task in tasks]


def await_running(daemon: Daemon, counts: dict[User, int]) -> None:
    def seen() -> dict[str, int]:
        return {user.name: len(running_of(daemon, user)) for user in counts}

    wanted = {user.name: count for user, count in counts.items()}
    wait_until(lambda: seen() == wanted, f"{wanted} are running", seen=seen)


def test_the_next_place_is_for_who_has_none_though_another_user_has_20000_tasks_queued(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]
    daemon = make_daemon("3").start()
    mine, theirs = server.serve("/alice", HELD), server.serve("/bob", HELD)
    add(daemon, alice, place, *[mine] * 20_000)
    await_held(server, 3)
    add(daemon, bob, place, theirs)
    assert asked_for(server) == ["/alice"] * 3
    await_running(daemon, {alice: 3})
    alice.call(daemon.socket, "cancel", ids=running_of(daemon, alice)[:1])
    await_held(server, 1)
    assert asked_for(server)[3:] == ["/bob"]
    await_running(daemon, {alice: 2, bob: 1})
    assert alice.call(daemon.socket, "clear")["cleared"] == 20_000 - 3
    server.release()


def test_places_are_shared_by_weight_and_a_reload_changes_it(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]

    def config(weight: int) -> str:
        return f"{QUICK}\n[users.{alice.name}]\nweight = {weight}\n"

    daemon = make_daemon("8", config=config(3)).start()
    url = server.serve("/held", HELD)
    for user in (alice, bob):
        user.call(daemon.socket, "pause")
        add(daemon, user, place, *[url] * 100)
    daemon.ok("pause", "--all")
    for user in (alice, bob):
        user.call(daemon.socket, "resume")
    daemon.ok("resume", "--all")
    await_running(daemon, {alice: 6, bob: 2})
    daemon.config.write_text(config(1))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "is reloaded" in daemon.log(), "it is reloaded")
    alice.call(daemon.socket, "cancel", ids=running_of(daemon, alice)[:2])
    await_running(daemon, {alice: 4, bob: 4})
    for user in (alice, bob):
        user.call(daemon.socket, "clear")
    server.release()


def test_small_files_of_one_user_leave_others_their_share_of_the_places(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]
    daemon = make_daemon("4").start()
    add(daemon, alice, place, *[server.serve("/small", Case(body=b"x"))] * 10_000)
    wait_until(lambda: alice.call(daemon.socket, "stats")["tasks"]["finished"] > 50, "alice's are under way")
    add(daemon, bob, place, *[server.serve("/held", HELD)] * 10)
    await_held(server, 2)
    await_running_at_least(daemon, bob, 2)
    assert alice.call(daemon.socket, "stats")["tasks"]["enqueued"] > 0, "they were not simply done"
    for user in (alice, bob):
        user.call(daemon.socket, "clear")
    server.release()


def await_running_at_least(daemon: Daemon, user: User, count: int) -> None:
    wait_until(lambda: len(running_of(daemon, user)) >= count, f"{count} are running")


def test_priority_counts_among_the_tasks_of_one_user_alone(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob, carol = users["alice"], users["bob"], users["carol"]
    daemon = make_daemon("1").start()
    first = add(daemon, carol, place, server.serve("/first", HELD))
    await_held(server, 1)
    ids = {}
    for path in ("/alice", "/urgent"):
        [ids[path]] = add(daemon, alice, place, server.serve(path, HELD))
        alice.call(daemon.socket, "priority", id=ids[path], priority=1000 if path == "/urgent" else 0)
    add(daemon, bob, place, server.serve("/bob", Case(body=b"x")))
    await_running(daemon, {carol: 1})
    carol.call(daemon.socket, "cancel", ids=first)
    await_held(server, 1)
    await_running(daemon, {alice: 1})
    alice.call(daemon.socket, "cancel", ids=[ids["/urgent"]])
    wait_until(lambda: len(asked_for(server)) == 4, "all were asked for", seen=lambda: asked_for(server))
    order = asked_for(server)[1:]
    assert order in (["/bob", "/urgent", "/alice"], ["/urgent", "/bob", "/alice"])
    server.release()


def test_short_tasks_of_many_users_do_not_cost_a_worker_each(
    make_daemon: MakeDaemon, server: MisbehavingServer, place: Path
) -> None:
    """Each worker has one connection, and keeps it: the server sees how many workers there were."""
    url = server.serve("/small", Case(body=b"x"))
    with accounts(*[f"u{number}" for number in range(8)]) as many:
        daemon = make_daemon("2").start()
        daemon.ok("pause", "--all")
        for user in many.values():
            add(daemon, user, place, *[url] * 100)
        daemon.ok("resume", "--all")
        wait_until(lambda: len(asked_for(server)) >= 800, "all is fetched", seen=lambda: len(asked_for(server)))
        assert 8 <= server.connections <= 500, "there are 800 tasks"
        for user in many.values():
            wait_until(lambda user=user: finished_of(daemon, user) == 100, f"{user.name} has all")  # type: ignore[misc]


def finished_of(daemon: Daemon, user: User) -> int:
    return int(user.call(daemon.socket, "stats")["tasks"]["finished"])


def test_who_has_no_place_gets_one_of_who_has_several_though_none_becomes_free(
    make_daemon: MakeDaemon, server: MisbehavingServer, users: dict[str, User], place: Path
) -> None:
    alice, bob = users["alice"], users["bob"]
    daemon = make_daemon("2", config=QUICK + "[limits]\nmake_way_after_s = 1\n").start()
    endless = Case(body=LARGE, hold_after=50_000, etag='"v"')
    older, newer = (add(daemon, alice, place, server.serve(f"/{name}", endless))[0] for name in ("older", "newer"))
    await_running(daemon, {alice: 2})
    await_held(server, 2)
    short = add(daemon, bob, place, server.serve("/short", Case(body=b"x")))[0]
    assert daemon.await_state(short, "finished")["attempts"] == 1
    assert [daemon.status(task_id)["state"] for task_id in (older, newer)].count("finished") == 0
    server.release()
    done = {task_id: daemon.await_state(task_id, "finished") for task_id in (older, newer)}
    assert {Path(task["dest"]).read_bytes() for task in done.values()} == {LARGE}
    events = {task_id: daemon.json("log", str(task_id))["events"] for task_id in done}
    said = [event["detail"] for event in events[newer] if event["event"] == "interrupt"]
    assert said == ["another user's download had no place"]
    assert [event["event"] for event in events[older]].count("interrupt") == 0
    assert all(bool(request.range) is (request.number > 1) for request in server.requests)


@pytest.mark.parametrize(("owners", "off"), [(("alice", "bob"), False), (("alice", "alice"), True)])
def test_nobody_makes_way_who_has_but_one_place_nor_for_whom_that_is_switched_off(
    make_daemon: MakeDaemon,
    server: MisbehavingServer,
    users: dict[str, User],
    place: Path,
    owners: tuple[str, str],
    off: bool,
) -> None:
    carol = users["carol"]
    limits = f"[users.{carol.name}]\nmake_way_after_s = 0\n" if off else ""
    daemon = make_daemon("2", config=QUICK + "[limits]\nmake_way_after_s = 1\n" + limits).start()
    endless = Case(body=LARGE, hold_after=50_000, etag='"v"')
    held = [add(daemon, users[name], place, server.serve(f"/{n}", endless))[0] for n, name in enumerate(owners)]
    await_held(server, 2)
    waiting = add(daemon, carol, place, server.serve("/carol", Case(body=b"x")))[0]
    # That nothing happens is no event: it would have, several times over.
    with pytest.raises(NeverCame):
        wait_until(lambda: daemon.status(waiting)["state"] != "enqueued", "carol's begins", timeout_s=4)
    server.release()
    daemon.await_settled([*held, waiting])
    for task_id in held:
        assert [event["event"] for event in daemon.json("log", str(task_id))["events"]].count("interrupt") == 0
