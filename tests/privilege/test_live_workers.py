"""What /proc says of workers at work: whose they are, what they hold, what they may take."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.nginx import Nginx
from support.waiting import wait_until

from autodl_lib.privilege.landlock import landlock_abi

LIMITED = QUICK.replace("connections = 1", "connections = 4") + (
    '[worker]\nnice = 7\nio_priority = "5"\nmemory_bytes = 300000000\nfiles = 200\nprocesses = 5000\n'
    "file_size_bytes = 50000000\n"
)


@pytest.fixture(scope="module")
def alice() -> Iterator[User]:
    with accounts("alice", groups={"alice": ["adlt-extra"]}) as users:
        yield users["alice"]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def limits_of(pid: int) -> dict[str, tuple[int, int]]:
    """Return the limits that are numbers and are not the machine's own: soft and hard."""
    found = {}
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
        name, *words = re.split(r"\s{2,}", line)
        if name.startswith(
            ("Max data", "Max open", "Max proc", "Max file size", "Max core", "Max msg", "Max realtime p")
        ):
            found[name] = (int(words[0]), int(words[1]))
    return found


def worker_at_work(daemon: Daemon, user: User | None, nginx: Nginx, name: str) -> psutil.Process:
    served = nginx.file(f"live/{name}", 3_000_000)
    params = {"urls": [served.slow_url]}
    if user is None:
        daemon.await_bytes(daemon.add_one(served.slow_url))
    else:
        daemon.await_bytes(user.call(daemon.socket, "add", **params)["ids"][0])
    [worker] = daemon.family().workers
    return worker


def test_a_worker_has_its_user_s_ids_and_groups_in_all_four_kinds_and_no_capability(
    daemon: Daemon, nginx: Nginx, alice: User
) -> None:
    worker = worker_at_work(daemon, alice, nginx, "ids.bin")
    for thread in worker.threads():
        status = status_of(thread.id)
        assert status["Uid"].split() == [str(alice.uid)] * 4
        assert status["Gid"].split() == [str(alice.gid)] * 4
        assert sorted(map(int, status["Groups"].split())) == sorted(alice.groups)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
    # Not dumpable: the files of its /proc entry are root's.
    assert os.stat(f"/proc/{worker.pid}/mem").st_uid == 0


def test_a_worker_of_root_keeps_what_saving_takes_and_no_more(daemon: Daemon, nginx: Nginx) -> None:
    worker = worker_at_work(daemon, None, nginx, "root.bin")
    status = status_of(worker.pid)
    assert status["Uid"].split() == ["0"] * 4
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 0b1110, name  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_the_report_queue_s_process_has_no_capability_either(daemon: Daemon) -> None:
    manager = wait_until(lambda: daemon.family().manager, "the manager lives", seen=daemon.log_end)
    wait_until(lambda: status_of(manager.pid)["NoNewPrivs"] == "1", "it has dropped", seen=daemon.log_end)
    status = status_of(manager.pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert "0" not in status["Uid"].split() + status["Gid"].split() + status["Groups"].split()


def test_a_worker_has_open_what_it_works_with_and_nothing_else(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    worker = worker_at_work(daemon, alice, nginx, "open.bin")
    opened = {int(n): os.readlink(f"/proc/{worker.pid}/fd/{n}") for n in os.listdir(f"/proc/{worker.pid}/fd")}
    assert opened.pop(0) == opened.pop(1) == "/dev/null"
    assert opened.pop(2) == str(daemon.log_path)  # standard error, where its messages go
    kinds: dict[str, list[int]] = {}
    folder = str(alice.home / "autodl-storage")
    for number, target in opened.items():
        kind = re.sub(r":.*", "", target)
        kinds.setdefault({folder: "folder", f"{folder}/.open.bin.autodl-part": "part"}.get(target, kind), []).append(
            number
        )
    wanted = {"pipe", "socket", "anon_inode", "folder", "part", f"{folder}/.open.bin.autodl-ctl"}
    assert set(kinds) <= wanted, opened
    # Pipes: its orders, to read, and both ends of the one for signals. Unix sockets: its reports, one.
    supervisor = {os.readlink(f"/proc/{daemon.pid}/fd/{n}") for n in os.listdir(f"/proc/{daemon.pid}/fd")}
    shared = [number for number in kinds["pipe"] if opened[number] in supervisor]
    assert len(shared) == 1
    flags = int(re.search(r"flags:\s+(\d+)", Path(f"/proc/{worker.pid}/fdinfo/{shared[0]}").read_text())[1], 8)  # type: ignore[index]
    assert flags & os.O_ACCMODE == os.O_RDONLY
    inodes = {opened[number].strip("socket:[]") for number in kinds["socket"]}
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert len([words for words in unix if words[6] in inodes]) == 1


def test_a_worker_s_environment_and_folder_are_its_own(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    worker = worker_at_work(daemon, alice, nginx, "session.bin")
    assert os.readlink(f"/proc/{worker.pid}/cwd") == "/"
    assert status_of(worker.pid)["Umask"] == "0022"


def test_workers_share_a_session_that_is_not_the_daemon_s(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    """So they are one group for the kernel's scheduler, and nobody types into a shell of root's."""
    worker = worker_at_work(daemon, alice, nginx, "session.bin")
    assert os.getsid(worker.pid) == worker.ppid()
    assert os.getsid(worker.pid) != os.getsid(daemon.pid)
    assert os.getpgid(worker.pid) == worker.pid


def test_what_else_was_in_the_daemon_s_environment_is_in_no_other_process(
    make_daemon: MakeDaemon, nginx: Nginx, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADLT_TOKEN", "hunter-in-environment")
    monkeypatch.setenv("LANG", "C.UTF-8")
    daemon = make_daemon().start()
    assert b"hunter-in-environment" in Path(f"/proc/{daemon.pid}/environ").read_bytes(), "this test would not see it"
    worker = worker_at_work(daemon, alice, nginx, "environment.bin")
    processes = psutil.Process(daemon.pid).children(recursive=True)
    assert worker in processes
    assert len(processes) >= 3  # forkserver, report queue, worker
    for process in processes:
        found = process.environ()
        assert "ADLT_TOKEN" not in found
        assert found["LANG"] == "C.UTF-8"
        needless = [
            name for name in found if not name.startswith(("AUTODL_", "LC_", "PYTHON", "SSL_CERT_", "CURL_CA_"))
        ]
        assert set(needless) <= {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"}


def test_nobody_but_root_can_talk_to_what_starts_processes(daemon: Daemon, nginx: Nginx) -> None:
    """Whoever can, runs code as root: multiprocessing's forkserver unpickles what it is sent."""
    forkserver = wait_until(lambda: daemon.family().forkserver, "the forkserver lives", seen=daemon.log_end)
    listening = [link.laddr for link in forkserver.net_connections("unix") if link.laddr]
    assert listening
    for path in listening:
        assert path.startswith("/"), "an abstract socket is everybody's"
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) & 0o077 == 0


def test_limits_and_priorities_of_the_configuration_bind_the_worker(
    make_daemon: MakeDaemon, nginx: Nginx, alice: User
) -> None:
    daemon = make_daemon(config=LIMITED).start()
    worker = worker_at_work(daemon, alice, nginx, "limits.bin")
    assert worker.nice() == 7
    assert worker.ionice() == (psutil.IOPRIO_CLASS_BE, 5)
    assert limits_of(worker.pid) == {
        "Max data size": (300_000_000, 300_000_000),
        "Max open files": (200, 200),
        "Max processes": (5000, 5000),
        "Max file size": (50_000_000, 50_000_000),
        "Max core file size": (0, 0),
        "Max msgqueue size": (0, 0),
        "Max realtime priority": (0, 0),
    }
    served = nginx.file("live/too-long.bin", 50_000_001)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.url])["ids"]
    task = daemon.await_state(task_id, "failed", "retrying")
    assert task["error"]["code"] in ("disk", "disk_full"), task


def test_new_limits_bind_the_workers_that_start_after_a_reload(
    make_daemon: MakeDaemon, nginx: Nginx, alice: User
) -> None:
    daemon = make_daemon().start()
    daemon.config.write_text(LIMITED)
    psutil.Process(daemon.pid).send_signal(1)
    wait_until(lambda: "the configuration is reloaded" in daemon.log(), "it is reloaded", seen=daemon.log_end)
    assert worker_at_work(daemon, alice, nginx, "reload.bin").nice() == 7


def test_the_daemon_comes_before_all_that_it_starts(make_daemon: MakeDaemon, nginx: Nginx, alice: User) -> None:
    daemon = make_daemon().start()
    worker = worker_at_work(daemon, alice, nginx, "before.bin")
    manager = daemon.family().manager
    assert manager is not None
    assert psutil.Process(daemon.pid).nice() < 0
    assert (worker.nice(), manager.nice()) == (0, 0)


def test_the_log_says_whether_workers_are_confined(daemon: Daemon) -> None:
    wanted = f"confined by Landlock (version {landlock_abi()})" if landlock_abi() else "no Landlock here"
    assert wanted in daemon.log()


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o664), ("0377", 0o600)])
def test_the_caller_s_umask_is_the_file_s(daemon: Daemon, nginx: Nginx, umask: str, mode: int) -> None:
    served = nginx.file(f"live/umask-{umask}.bin", 1000)
    before = os.umask(int(umask, 8))
    try:
        folder = daemon.files / f"made-{umask}"
        [task_id] = daemon.add(served.url, "--dir", str(folder))
    finally:
        os.umask(before)
    path = Path(daemon.await_state(task_id, "finished")["dest"])
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777 & ~(int(umask, 8) & 0o077)


def test_the_next_task_has_its_own_umask(daemon: Daemon, nginx: Nginx, alice: User) -> None:
    served = nginx.file("live/own-umask.bin", 1000)
    masks = [0o077, None, 0o007, 0o022]
    ids = [alice.call(daemon.socket, "add", urls=[served.url], umask=mask)["ids"][0] for mask in masks]
    settled = daemon.await_settled(ids)
    modes = [stat.S_IMODE(Path(settled[task_id]["dest"]).stat().st_mode) for task_id in ids]
    assert modes == [0o600, 0o644, 0o660, 0o644]
