"""Where a user may save, and where not: every folder of a machine that several people share, and folders that move."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.accounts import User, accounts, turn_at_accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.waiting import wait_until

TEAM = f"adlt-team-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob", "carol", groups={"alice": [TEAM], "carol": [TEAM]}) as made:
        yield made


@pytest.fixture
def alice(users: dict[str, User]) -> User:
    return users["alice"]


def made(folder: Path, mode: int, *, user: User | None = None, group: str | None = None) -> Path:
    folder.mkdir()
    shutil.chown(folder, user.uid if user else 0, group or (user.gid if user else 0))
    folder.chmod(mode)
    return folder


def saved(daemon: Daemon, user: User, url: str, folder: Path, state: str = "finished") -> dict[str, object]:
    [task_id] = user.call(daemon.socket, "add", urls=[url], dir=str(folder))["ids"]
    return daemon.await_state(task_id, state)


def test_a_home_that_nobody_else_enters_is_its_owner_s_alone(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    url = nginx.file("folders/home.bin", 1000).url
    assert stat.S_IMODE(users["alice"].home.stat().st_mode) == 0o700
    saved(daemon, users["alice"], url, users["alice"].home / "below" / "deep")
    assert (users["alice"].home / "below" / "deep" / "home.bin").stat().st_uid == users["alice"].uid
    task = saved(daemon, users["bob"], url, users["alice"].home / "below", "failed")
    assert "permission" in str(task["error"])


def test_a_sticky_folder_takes_files_of_all_and_keeps_each_for_its_owner(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path
) -> None:
    url = nginx.file("folders/sticky.bin", 1000).url
    folder = made(place / "sticky", 0o1777)
    for name in ("alice", "bob"):
        saved(daemon, users[name], url, folder)
    owners = {path.name: path.stat().st_uid for path in folder.iterdir()}
    assert owners == {"sticky.bin": users["alice"].uid, "sticky.1.bin": users["bob"].uid}
    # A part file that somebody else put in the way is left alone, whatever it holds.
    trap = folder / ".trap.bin.autodl-part"
    trap.write_bytes(b"bob's")
    os.chown(trap, users["bob"].uid, users["bob"].gid)
    trap.chmod(0o666)
    task = saved(daemon, users["alice"], nginx.file("folders/trap.bin", 300_000).url, folder)
    assert str(task["dest"]).endswith("/trap.1.bin")
    assert trap.read_bytes() == b"bob's"
    # A small file that comes at once needs none.
    task = saved(daemon, users["alice"], nginx.file("folders/small/trap.bin", 1000).url, folder)
    assert Path(str(task["dest"])).name in ("trap.bin", "trap.2.bin")
    assert Path(str(task["dest"])).stat().st_uid == users["alice"].uid
    assert trap.read_bytes() == b"bob's"


@pytest.mark.parametrize("kind", ["file", "fifo", "hard link"])
@pytest.mark.parametrize("policy", ["rename", "overwrite"])
def test_what_somebody_put_in_a_control_file_s_place_is_in_nobody_s_way(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path, kind: str, policy: str
) -> None:
    served = nginx.file("folders/blocked.bin", 3_000_000)
    folder = made(place / f"sticky-{kind}-{policy}", 0o1777)
    trap = folder / ".blocked.bin.autodl-ctl"
    if kind == "fifo":
        os.mkfifo(trap)
    else:
        trap.write_bytes(b"bob's")
    os.chown(trap, users["bob"].uid, users["bob"].gid)
    trap.chmod(0o666)
    if kind == "hard link":
        os.link(trap, folder / "second")
    params = {"urls": [served.url], "dir": str(folder), "on_conflict": policy}
    task = daemon.await_state(users["alice"].call(daemon.socket, "add", **params)["ids"][0], "finished")
    assert Path(str(task["dest"])).read_bytes() == served.data
    assert trap.stat().st_uid == users["bob"].uid


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nor_is_it_when_a_checkpoint_is_due(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path, kind: str
) -> None:
    served = nginx.file("folders/slow.bin", 3_000_000, rate="800k")
    folder = made(place / f"sticky-slow-{kind}", 0o1777)
    [task_id] = users["alice"].call(daemon.socket, "add", urls=[served.slow_url], dir=str(folder))["ids"]
    daemon.await_bytes(task_id)
    trap = folder / ".slow.bin.autodl-ctl"
    (trap.mkdir if kind == "folder" else trap.touch)()
    os.chown(trap, users["bob"].uid, users["bob"].gid)
    task = daemon.await_state(task_id, "finished")
    assert (task["attempts"], Path(str(task["dest"])).read_bytes() == served.data) == (1, True)
    assert {path.name for path in folder.iterdir()} == {"slow.bin", trap.name}


def test_a_setgid_folder_hands_its_group_on(daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path) -> None:
    url = nginx.file("folders/team.bin", 1000).url
    folder = made(place / "team", 0o2770, group=TEAM)
    team = folder.stat().st_gid
    for name in ("alice", "carol"):  # by their supplementary group alone
        params = {"urls": [url], "dir": str(folder / "new"), "umask": 0o007}
        task = daemon.await_state(users[name].call(daemon.socket, "add", **params)["ids"][0], "finished")
        status = Path(str(task["dest"])).stat()
        assert (status.st_uid, status.st_gid) == (users[name].uid, team)
        assert not status.st_mode & stat.S_ISGID
    assert stat.S_IMODE((folder / "new").stat().st_mode) & 0o2000
    assert "permission" in str(saved(daemon, users["bob"], url, folder, "failed")["error"])


def test_an_access_list_lets_in_whom_it_names_and_hands_its_defaults_on(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path
) -> None:
    url = nginx.file("folders/listed.bin", 1000).url
    folder = made(place / "listed", 0o700)
    alice, carol = users["alice"], users["carol"]
    for rule in (f"u:{alice.name}:rwx", f"d:u:{carol.name}:rw-", f"d:u:{alice.name}:rw-"):
        done = subprocess.run(["setfacl", "-m", rule, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, f"these tests need a file system with access lists: {done.stderr}"
    path = Path(str(saved(daemon, alice, url, folder)["dest"]))
    rules = subprocess.run(["getfacl", "-cp", str(path)], capture_output=True, text=True, check=True).stdout
    assert f"user:{carol.name}:rw-" in rules
    assert "mask::rw-" in rules  # the umask must not take away what the list gives
    assert "permission" in str(saved(daemon, users["bob"], url, folder, "failed")["error"])


def test_a_group_that_a_user_joins_opens_its_folders_to_the_next_worker(
    make_daemon: MakeDaemon, nginx: Nginx, users: dict[str, User], place: Path
) -> None:
    daemon = make_daemon().start()
    url = nginx.file("folders/joined.bin", 1000).url
    bob = users["bob"]
    folder = made(place / "joined", 0o770, group=TEAM)
    assert "permission" in str(saved(daemon, bob, url, folder, "failed")["error"])
    with turn_at_accounts():
        subprocess.run(["gpasswd", "-a", bob.name, TEAM], check=True, stdout=subprocess.DEVNULL)
    try:
        end_workers(daemon)
        saved(daemon, bob, url, folder)
        with turn_at_accounts():
            subprocess.run(["gpasswd", "-d", bob.name, TEAM], check=True, stdout=subprocess.DEVNULL)
        end_workers(daemon)
        assert "permission" in str(saved(daemon, bob, url, folder, "failed")["error"])
    finally:
        subprocess.run(["gpasswd", "-d", bob.name, TEAM], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end_workers(daemon: Daemon) -> None:
    """Wait no idle time: groups are read when a worker starts."""
    workers = daemon.family().workers
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.terminate()
    wait_until(lambda: not any(worker.is_running() for worker in workers), "workers end", seen=daemon.log_end)


def test_a_folder_without_room_fails_its_task_and_no_other(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path
) -> None:
    small = made(place / "small", 0o700, user=users["alice"])
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=400k,uid={users['alice'].uid}", "none", str(small)], check=True
    )
    try:
        big = nginx.file("folders/big.bin", 2_000_000)
        [full] = users["alice"].call(daemon.socket, "add", urls=[big.url], dir=str(small))["ids"]
        task = daemon.await_task(full, "without room", lambda task: task["error"])
        assert task["error"]["code"] == "disk_full"
        other = saved(daemon, users["bob"], big.url, users["bob"].home)
        assert Path(str(other["dest"])).read_bytes() == big.data
        users["alice"].call(daemon.socket, "cancel", ids=[full])
        wait_until(lambda: not list(small.iterdir()), "nothing is left there", seen=lambda: list(small.iterdir()))
        end_workers(daemon)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("target", ["a file", "a folder", "a folder above"])
def test_folders_that_turn_into_symlinks_lead_nobody_astray(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], place: Path, target: str
) -> None:
    """Bob swaps a folder that alice saves to, and each name in it, for links to what only root may write."""
    alice, bob = users["alice"], users["bob"]
    treasure = made(place / "treasure", 0o755)
    below = made(treasure / "below", 0o755)
    for folder in (treasure, below):
        (folder / "swap.bin").write_bytes(b"root's")
    shared = made(place / "shared", 0o777)  # not sticky: bob may rename what alice makes
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        """As bob: no file but his own is his to make, but in this folder he may rename all."""
        nonlocal swaps
        aim = shared / "aim"
        while not stop.is_set():
            with contextlib.suppress(OSError):
                if target != "a file":
                    if aim.is_symlink():
                        aim.unlink()
                        aim.mkdir()
                        aim.chmod(0o777)
                        (aim / "below").mkdir()
                        (aim / "below").chmod(0o777)
                    else:
                        aim.rename(shared / f"old-{swaps}")
                        aim.symlink_to(treasure)
                else:
                    aim.mkdir(exist_ok=True)
                    aim.chmod(0o777)
                    for name in (".swap.bin.autodl-part", ".swap.bin.autodl-ctl", "swap.bin"):
                        fresh = shared / f"link-{swaps}"
                        fresh.symlink_to(treasure / "swap.bin")
                        fresh.rename(aim / name)
                swaps += 1

    swapper = os.fork()
    if swapper == 0:
        os.setgroups([])
        os.setresgid(bob.gid, bob.gid, bob.gid)
        os.setresuid(bob.uid, bob.uid, bob.uid)
        swap()
        os._exit(0)
    try:
        url = nginx.file("folders/swap.bin", 1000).url
        folder_name = str(shared / "aim" / "below") if target == "a folder above" else str(shared / "aim")
        ids = alice.call(daemon.socket, "add", urls=[url] * 60, dir=folder_name, on_conflict="overwrite")["ids"]
        for task_id in ids:
            daemon.await_task(task_id, "tried", lambda task: task["state"] in ("finished", "failed", "retrying"))
    finally:
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)
    alice.call(daemon.socket, "clear")
    assert sorted(path.name for path in treasure.iterdir()) == ["below", "swap.bin"]
    assert [path.name for path in below.iterdir()] == ["swap.bin"]
    for path in (treasure / "swap.bin", below / "swap.bin"):
        assert path.read_bytes() == b"root's"
        assert path.stat().st_uid == 0
    for path in shared.rglob("*"):
        if not path.is_symlink() and path.is_file():
            assert path.stat().st_uid == alice.uid


def test_a_user_who_is_deleted_while_their_task_runs_takes_nobody_along(
    make_daemon: MakeDaemon, nginx: Nginx, users: dict[str, User]
) -> None:
    daemon = make_daemon(config=QUICK).start()
    served = nginx.file("folders/deleted.bin", 1_500_000)
    with MisbehavingServer() as server:
        url = server.serve("/deleted.bin", Case(body=served.data, hold_after=1_000_000))
        with accounts("leaver") as leaving:
            leaver = leaving["leaver"]
            [running] = leaver.call(daemon.socket, "add", urls=[url])["ids"]
            daemon.await_bytes(running)
        # Home and account are gone; the worker is who it was, and its folder is no more.
        server.release()
        [other] = users["bob"].call(daemon.socket, "add", urls=[served.url])["ids"]
        daemon.await_state(other, "finished")
        daemon.await_task(running, "over", lambda task: task["state"] in ("failed", "finished", "retrying"))
    end_workers(daemon)
    task = daemon.await_settled([running])[running]
    assert (task["state"], task["error"] and task["error"]["code"]) != ("finished", None)
    assert not leaver.home.exists()


def test_a_home_is_the_caller_s_from_the_moment_in_which_a_task_is_added(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    """Nobody asks a worker later which folder is its own."""
    alice, bob = users["alice"], users["bob"]
    served = nginx.file("folders/home.bin", 1000)
    wanted = {"~": alice.home, "~/": alice.home, "~/a/b": alice.home / "a/b", f"~{bob.name}/c": bob.home / "c"}
    for asked, folder in wanted.items():
        [task_id] = alice.call(daemon.socket, "add", urls=[served.url], dir=asked, paused=True)["ids"]
        assert alice.call(daemon.socket, "status", id=task_id)["dir"] == str(folder)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url], dir="~/a/b/")["ids"]
    task = daemon.await_state(task_id, "finished")
    assert (task["dest"], task["dir"]) == (str(alice.home / "a/b/home.bin"), str(alice.home / "a/b"))


def test_a_home_that_nobody_has_is_said_so(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    served = nginx.file("folders/nobody.bin", 1000)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url], dir="~adlt-no-such-account/x")["ids"]
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] == "folder"
