"""A daemon that is root: who asks is the kernel's word, who works is the task's owner, and what each may see."""

from __future__ import annotations

import grp
import os
import pwd
import re
import secrets
import socket
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.nginx import Nginx
from support.rpc import Refused
from support.waiting import wait_until

RUN = secrets.token_hex(3)
"""Tells the groups of this run from those of another one at the same time."""

ADMINS, TEAM = f"adlt-admins-{RUN}", f"adlt-team-{RUN}"


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    groups = {"admin": [ADMINS], "alice": [TEAM], "carol": [TEAM]}
    with accounts("alice", "bob", "carol", "admin", groups=groups) as made:
        yield made


@pytest.fixture
def alice(users: dict[str, User]) -> User:
    return users["alice"]


@pytest.fixture
def bob(users: dict[str, User]) -> User:
    return users["bob"]


def folder_of(user: User, place: Path) -> Path:
    folder = place / f"of-{user.name}"
    folder.mkdir()
    os.chown(folder, user.uid, user.gid)
    return folder


def refused(user: User, daemon: Daemon, method: str, **params: object) -> str:
    with pytest.raises(Refused) as refusal:
        user.call(daemon.socket, method, **params)
    return refusal.value.code


def fields(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_file_belongs_to_who_asked_for_it(daemon: Daemon, nginx: Nginx, alice: User, place: Path) -> None:
    served = nginx.file("privilege/mine.bin", 2000)
    folder = folder_of(alice, place)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url], dir=str(folder))["ids"]
    task = daemon.await_state(task_id, "finished")
    assert (task["uid"], task["owner"]) == (alice.uid, alice.name)
    found = (folder / "mine.bin").stat()
    assert (found.st_uid, found.st_gid) == (alice.uid, alice.gid)
    assert stat.S_IMODE(found.st_mode) & 0o022 == 0
    assert (folder / "mine.bin").read_bytes() == served.data


def test_the_default_folder_is_in_the_owner_s_home(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    served = nginx.file("privilege/home.bin", 2000)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url])["ids"]
    task = daemon.await_state(task_id, "finished")
    dest = alice.home / "autodl-storage" / "home.bin"
    assert task["dest"] == str(dest)
    assert dest.stat().st_uid == dest.parent.stat().st_uid == alice.uid


def test_a_worker_is_its_user_in_every_way_and_can_not_become_root_again(
    daemon: Daemon, nginx: Nginx, alice: User, place: Path
) -> None:
    served = nginx.file("privilege/slow.bin", 3_000_000)
    params = {"urls": [served.slow_url], "dir": str(folder_of(alice, place))}
    [task_id] = alice.call(daemon.socket, "add", **params)["ids"]
    daemon.await_bytes(task_id)
    [worker] = daemon.family().workers
    status = fields(worker)
    assert status["Uid"].split() == [str(alice.uid)] * 4
    assert status["Gid"].split() == [str(alice.gid)] * 4
    assert {int(group) for group in status["Groups"].split()} == alice.groups
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1"
    # Nothing of the supervisor's is open in it: no database, no socket of a client, no log but standard error.
    opened = {os.readlink(f"/proc/{worker.pid}/fd/{n}") for n in os.listdir(f"/proc/{worker.pid}/fd")}
    assert not [path for path in opened if "queue.db" in path or "daemon.lock" in path or str(daemon.socket) in path]
    threads = [fields(psutil.Process(thread.id)) for thread in worker.threads() if thread.id != worker.pid]
    assert {thread["Uid"] for thread in threads} <= {status["Uid"]}
    assert os.readlink(f"/proc/{worker.pid}/cwd") == "/"


def test_the_manager_is_nobody_and_can_not_become_root_again(daemon: Daemon) -> None:
    manager = wait_until(lambda: daemon.family().manager, "the manager lives", seen=daemon.log_end)
    # It binds its socket, by which it is told here, before it drops.
    wait_until(lambda: fields(manager)["NoNewPrivs"] == "1", "it has dropped", seen=lambda: fields(manager))
    status = fields(manager)
    [uid] = set(status["Uid"].split())
    assert pwd.getpwuid(int(uid)).pw_name in ("autodl", "nobody")
    assert len(set(status["Gid"].split())) == 1
    assert "0" not in status["Groups"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_users_have_workers_of_their_own(daemon: Daemon, nginx: Nginx, alice: User, bob: User, place: Path) -> None:
    served = nginx.file("privilege/both.bin", 3_000_000)
    for user in (alice, bob):
        params = {"urls": [served.slow_url], "dir": str(folder_of(user, place))}
        daemon.await_bytes(user.call(daemon.socket, "add", **params)["ids"][0])
    owners = sorted(int(fields(worker)["Uid"].split()[0]) for worker in daemon.family().workers)
    assert owners == sorted([alice.uid, bob.uid])


def test_one_slot_serves_all_users_in_turn(make_daemon: MakeDaemon, nginx: Nginx, users: dict[str, User]) -> None:
    daemon = make_daemon("1").start()
    served = nginx.file("privilege/turn.bin", 1000)
    ids = [
        user.call(daemon.socket, "add", urls=[served.url] * 5)["ids"]
        for user in (users["alice"], users["bob"], users["carol"])
    ]
    settled = daemon.await_settled([number for mine in ids for number in mine])
    assert {task["state"] for task in settled.values()} == {"finished"}
    for user in ("alice", "bob", "carol"):
        assert len(list((users[user].home / "autodl-storage").glob("turn*"))) == 5


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("status", lambda task_id: {"id": task_id}),
        ("log", lambda task_id: {"id": task_id}),
        ("explain", lambda task_id: {"id": task_id}),
        ("priority", lambda task_id: {"id": task_id, "priority": 1}),
        ("cancel", lambda task_id: {"ids": [task_id]}),
        ("retry", lambda task_id: {"ids": [task_id]}),
        ("pause", lambda task_id: {"ids": [task_id]}),
        ("resume", lambda task_id: {"ids": [task_id]}),
        ("watch", lambda task_id: {"ids": [task_id]}),
    ],
)
def test_another_user_s_task_does_not_exist(daemon: Daemon, alice: User, bob: User, method: str, params) -> None:  # type: ignore[no-untyped-def]
    [task_id] = alice.call(daemon.socket, "add", urls=["http://127.0.0.1:1/x"], paused=True)["ids"]
    [own] = bob.call(daemon.socket, "add", urls=["http://127.0.0.1:1/x"], paused=True)["ids"]
    with pytest.raises(Refused) as other:
        bob.call(daemon.socket, method, **params(task_id))
    with pytest.raises(Refused) as absent:
        bob.call(daemon.socket, method, **params(9999))
    assert other.value.code == absent.value.code == "no_such_task"
    assert other.value.message.replace(str(task_id), "N") == absent.value.message.replace("9999", "N")
    if "ids" in params(1):
        assert refused(bob, daemon, method, ids=[task_id, own]) == "no_such_task"
    assert daemon.status(task_id)["state"] == "paused"
    assert daemon.status(own)["state"] == "paused"


def test_list_stats_pause_and_clear_are_about_one_s_own_tasks(daemon: Daemon, alice: User, bob: User) -> None:
    url = "http://127.0.0.1:1/x"
    assert alice.call(daemon.socket, "pause")["held"] is True
    mine = alice.call(daemon.socket, "add", urls=[url] * 3)["ids"]
    theirs = bob.call(daemon.socket, "add", urls=[url] * 2, paused=True)["ids"]
    assert [task["id"] for task in alice.call(daemon.socket, "list")["tasks"]] == mine
    assert [task["id"] for task in bob.call(daemon.socket, "list")["tasks"]] == theirs
    assert alice.call(daemon.socket, "stats")["tasks"]["enqueued"] == 3
    assert bob.call(daemon.socket, "stats")["tasks"]["enqueued"] == 0
    assert bob.call(daemon.socket, "stats")["held"] is False
    assert bob.call(daemon.socket, "clear") == {"cleared": 0}
    assert alice.call(daemon.socket, "clear") == {"cleared": 3}
    assert {task["state"] for task in bob.call(daemon.socket, "list")["tasks"]} == {"paused"}


@pytest.mark.parametrize("method", ["list", "stats", "watch", "pause", "resume", "clear"])
def test_all_is_for_administrators(daemon: Daemon, bob: User, method: str) -> None:
    assert refused(bob, daemon, method, all=True) == "not_allowed"


def test_the_number_of_tasks_is_shown_to_all_and_changed_by_administrators(daemon: Daemon, bob: User) -> None:
    assert bob.call(daemon.socket, "max_tasks") == {"max_tasks_num": 10}
    assert refused(bob, daemon, "max_tasks", max_tasks_num=3) == "not_allowed"
    assert daemon.ok("max-tasks") == "10\n"


def test_a_member_of_the_admin_group_sees_and_steers_everything_but_no_secrets(
    make_daemon: MakeDaemon, users: dict[str, User]
) -> None:
    daemon = make_daemon(config=QUICK + f'[access]\nadmin_group = "{ADMINS}"\n').start()
    admin, alice = users["admin"], users["alice"]
    url = "http://name:hunter22@127.0.0.1:1/x"
    [task_id] = alice.call(daemon.socket, "add", urls=[url], paused=True)["ids"]
    [task] = admin.call(daemon.socket, "list", all=True)["tasks"]
    assert (task["id"], task["owner"], task["url"]) == (task_id, alice.name, "http://***@127.0.0.1:1/x")
    assert alice.call(daemon.socket, "status", id=task_id)["url"] == url
    assert admin.call(daemon.socket, "max_tasks", max_tasks_num=3) == {"max_tasks_num": 3}
    assert admin.call(daemon.socket, "cancel", ids=[task_id]) == {"ids": [task_id]}
    assert "hunter22" not in daemon.log()


def test_who_is_not_allowed_is_refused_at_once(make_daemon: MakeDaemon, users: dict[str, User]) -> None:
    config = f'[access]\nallow_users = ["{users["bob"].name}"]\nallow_groups = ["{TEAM}"]\n'
    daemon = make_daemon(config=config).start()
    assert users["admin"].first_answer(daemon.socket)["error"]["data"]["code"] == "not_allowed"
    for name in ("bob", "alice", "carol"):  # by name, and two by their group
        assert users[name].call(daemon.socket, "max_tasks") == {"max_tasks_num": 10}
    assert daemon.ok("max-tasks") == "10\n"


def test_who_is_denied_is_refused_whatever_else_lets_them_in(make_daemon: MakeDaemon, users: dict[str, User]) -> None:
    names = {name: user.name for name, user in users.items()}
    config = (
        f'[access]\nallow_users = ["*", "{names["bob"]}"]\nadmin_group = "{ADMINS}"\n'
        f'deny_users = ["{names["bob"]}", "{names["admin"]}", "root"]\ndeny_groups = ["{TEAM}", "root"]\n'
    )
    daemon = make_daemon(config=config).start()
    for name in ("bob", "admin", "alice", "carol"):  # by name, an administrator too, and two by their group
        assert users[name].first_answer(daemon.socket)["error"]["data"]["code"] == "not_allowed", name
    assert daemon.ok("max-tasks") == "10\n"  # root is never denied
    daemon.config.write_text(config.replace(names["bob"], "nobody-of-that-name"))
    psutil.Process(daemon.pid).send_signal(1)
    wait_until(lambda: "the configuration is reloaded" in daemon.log(), "it is reloaded", seen=daemon.log_end)
    assert users["bob"].call(daemon.socket, "max_tasks") == {"max_tasks_num": 10}


def test_the_socket_has_the_group_and_the_mode_of_the_configuration(
    make_daemon: MakeDaemon, users: dict[str, User]
) -> None:
    daemon = make_daemon(config=f'[access]\nsocket_group = "{TEAM}"\nsocket_mode = "0660"\n').start()
    found = daemon.socket.stat()
    assert (found.st_uid, grp.getgrgid(found.st_gid).gr_name, stat.S_IMODE(found.st_mode)) == (0, TEAM, 0o660)

    def connects() -> bool:
        with socket.socket(socket.AF_UNIX) as peer:
            return peer.connect_ex(str(daemon.socket)) == 0

    assert users["alice"].do(connects) is True
    assert users["bob"].do(connects) is False


@pytest.mark.parametrize(
    ("line", "words"),
    [('socket_mode = "0888"', "is no octal number"), ('socket_group = "no-such-group-here"', "there is no group")],
)
def test_a_socket_that_can_not_be_given_away_is_refused_in_a_sentence(
    make_daemon: MakeDaemon, line: str, words: str
) -> None:
    daemon = make_daemon(config=f"[access]\n{line}\n")
    assert daemon.launch().wait(30) == 2
    assert words in daemon.log()
    assert not daemon.socket.exists()


def test_a_uid_without_an_account_and_the_overflow_uid_are_refused(daemon: Daemon) -> None:
    for uid in (54321, 65534):
        stranger = User("stranger", uid, uid, Path("/"), frozenset())
        assert stranger.first_answer(daemon.socket)["error"]["data"]["code"] == "not_allowed"


def test_a_folder_that_the_owner_may_not_write_to_fails_the_task(
    daemon: Daemon, nginx: Nginx, alice: User, bob: User, place: Path
) -> None:
    url = nginx.file("privilege/denied.bin", 10).url
    theirs = folder_of(bob, place)
    theirs.chmod(0o700)
    for folder in (theirs, bob.home, theirs / "below", Path("/etc"), daemon.state_dir):
        [task_id] = alice.call(daemon.socket, "add", urls=[url], dir=str(folder))["ids"]
        task = daemon.await_state(task_id, "failed")
        assert task["error"]["code"] == "permission", folder
    assert list(theirs.iterdir()) == []
    assert not Path("/etc/denied.bin").exists()


def test_overwriting_another_user_s_file_fails(
    daemon: Daemon, nginx: Nginx, alice: User, bob: User, place: Path
) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "theirs.bin").write_text("bob's")
    os.chown(shared / "theirs.bin", bob.uid, bob.gid)
    params = {"urls": [nginx.file("privilege/theirs.bin", 10).url], "dir": str(shared), "on_conflict": "overwrite"}
    [task_id] = alice.call(daemon.socket, "add", **params)["ids"]
    assert daemon.await_state(task_id, "failed")["error"]["code"] == "permission"
    assert (shared / "theirs.bin").read_text() == "bob's"


def test_a_link_in_the_way_is_not_followed(daemon: Daemon, nginx: Nginx, alice: User, place: Path) -> None:
    victim = place / "victim"
    victim.write_text("root's")
    folder = folder_of(alice, place)
    for name in ("link.bin", ".link.bin.autodl-part", ".link.bin.autodl-ctl"):
        (folder / name).symlink_to(victim)
    served = nginx.file("privilege/link.bin", 1000)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url], dir=str(folder))["ids"]
    task = daemon.await_state(task_id, "finished")
    assert victim.read_text() == "root's"
    assert Path(task["dest"]).read_bytes() == served.data
    assert not Path(task["dest"]).is_symlink()


def test_a_user_reads_nothing_of_the_daemon_s_state(daemon: Daemon, alice: User) -> None:
    [reports] = wait_until(lambda: list(daemon.state_dir.glob("reports-*.sock")), what="the report queue's socket")

    def look() -> list[str]:
        reachable = []
        for path in (daemon.state_dir, daemon.state_dir / "queue.db", reports):
            try:
                os.stat(path) if path != daemon.state_dir else os.listdir(path)
            except PermissionError:
                continue
            reachable.append(str(path))
        return reachable

    assert alice.do(look) == []


def test_a_worker_can_not_be_traced_or_read_by_its_user(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    served = nginx.file("privilege/traced.bin", 3_000_000)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.slow_url])["ids"]
    daemon.await_bytes(task_id)
    [worker] = daemon.family().workers

    def look() -> list[str]:
        readable = []
        for name in ("mem", "environ", "maps"):
            try:
                with open(f"/proc/{worker.pid}/{name}", "rb") as file:
                    file.read(1)
            except PermissionError:
                continue
            readable.append(name)
        return readable

    assert alice.do(look) == []


def test_secrets_of_a_url_are_in_no_command_line_and_no_log(
    daemon: Daemon, nginx: Nginx, alice: User, place: Path
) -> None:
    served = nginx.file("privilege/secret.bin", 2_000_000)
    url = served.slow_url.replace("http://", "http://user:hunter22@")
    params = {"urls": [url], "dir": str(folder_of(alice, place)), "headers": ["X-Token: hunter22"]}
    [task_id] = alice.call(daemon.socket, "add", **params)["ids"]
    daemon.await_bytes(task_id)
    for process in [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]:
        assert "hunter22" not in " ".join(process.cmdline())
    alice.call(daemon.socket, "cancel", ids=[task_id])
    assert re.search("hunter22", daemon.log()) is None


def test_a_user_whose_account_is_gone_fails_and_nobody_else_does(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    served = nginx.file("privilege/gone.bin", 1000)
    with accounts("gone") as made:
        made["gone"].call(daemon.socket, "pause")
        [task_id] = made["gone"].call(daemon.socket, "add", urls=[served.url])["ids"]
    daemon.ok("status", str(task_id))
    with daemon.connect() as wire:
        wire.call("pause", ids=[task_id])
        gone_uid = wire.call("status", id=task_id)["uid"]
    # The hold was theirs; nobody can lift it now but a new daemon whose queue has none.
    daemon.stop()
    queue = sqlite3.connect(daemon.state_dir / "queue.db")
    queue.execute("DELETE FROM hold WHERE uid = ?", (gone_uid,))
    queue.commit()
    queue.close()
    daemon.start()
    with daemon.connect() as wire:
        wire.call("resume", ids=[task_id])
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] == "account"
    [other] = alice.call(daemon.socket, "add", urls=[served.url])["ids"]
    daemon.await_state(other, "finished")
