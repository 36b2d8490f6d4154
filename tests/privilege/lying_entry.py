"""What a worker of a user named *liar* runs in place of the real code: the lie that its task's URL names.

Everybody else's workers are honest. The tests copy autodl and put this in the place of worker/entry.py,
with `liar.py` and `lying_reports.py` beside it.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import pwd
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autodl_lib.worker.liar import LIES, Liar, lie

from autodl_lib.worker import lying_reports  # noqa: F401  (with its lies)

# As in the real entry, all that is needed is imported while it can be read; these are the test's own needs.
honest = importlib.import_module("autodl_lib.worker.honest_entry")

# --- silence ---


@lie
def never_reports(_liar: Liar) -> None:
    time.sleep(60)


@lie
def stops_itself(liar: Liar) -> None:
    liar.say(liar.started())
    os.kill(os.getpid(), signal.SIGSTOP)


@lie
def closes_its_reports(liar: Liar) -> None:
    liar.reports.close()
    time.sleep(60)


@lie
def closes_its_orders(liar: Liar) -> None:
    liar.orders.close()
    time.sleep(60)


@lie
def ends_well(_liar: Liar) -> None:
    os._exit(0)


@lie
def ends_as_if_there_were_no_queue(_liar: Liar) -> None:
    """Which is no fault of a task, that would be tried again at once, for ever."""
    os._exit(69)


@lie
def ends_as_if_there_were_no_account(_liar: Liar) -> None:
    os._exit(67)


@lie
def kills_itself(_liar: Liar) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@lie
def eats_memory(liar: Liar) -> None:
    held = []
    try:
        while True:
            held.append(bytearray(64 * 1024 * 1024))
    except MemoryError:
        count = len(held)
        held.clear()
    liar.tell(mebibytes=64 * count)


# --- children ---


@lie
def leaves_a_child(liar: Liar) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            (liar.folder / "child").write_text(str(os.getpid()))
            time.sleep(600)
        await_child(liar)  # nobody's child is looked for and killed at any moment
        os._exit(0)
    await_child(liar)
    os._exit(0)


def await_child(liar: Liar) -> None:
    while not (liar.folder / "child").exists():
        time.sleep(0.01)


@lie
def child_speaks_for_it(liar: Liar) -> None:
    """The worker ends; what it forked goes on with its connection."""
    if os.fork() == 0:
        time.sleep(2)
        while True:
            liar.say(liar.started())
    os._exit(0)


# --- looking around ---


def attempt(act: Callable[[], Any]) -> str:
    """Return the errno's name that an attempt ends with, or that it worked."""
    try:
        act()
    except OSError as error:
        return error.strerror or type(error).__name__
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return "worked"


def trace(pid: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(ctypes.c_long(16), ctypes.c_long(pid), None, None) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@lie
def looks_around(liar: Liar) -> None:
    supervisor = int(liar.order["url"].rpartition("/")[2].partition("-")[0])
    state_dir = bytes.fromhex(liar.order["url"].rpartition("-")[2]).decode()
    proc = Path(f"/proc/{supervisor}")
    home = Path(os.environ["HOME"])
    other = next((int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_neighbour(p)), 0)

    def connect(address: str) -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(address)

    def listen(port: int) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
            server.listen()

    liar.tell(
        **{
            "environment of the supervisor": attempt(lambda: (proc / "environ").read_bytes()),
            "memory of the supervisor": attempt(lambda: os.open(proc / "mem", os.O_RDONLY)),
            "files of the supervisor": attempt(lambda: list((proc / "fd").iterdir())),
            "trace the supervisor": attempt(lambda: trace(supervisor)),
            "kill the supervisor": attempt(lambda: os.kill(supervisor, signal.SIGKILL)),
            "kill a process of the user": attempt(lambda: os.kill(other, 0)),
            "trace a process of the user": attempt(lambda: trace(other)),
            "memory of a process of the user": attempt(lambda: os.open(f"/proc/{other}/mem", os.O_RDONLY)),
            "list the state": attempt(lambda: os.listdir(state_dir)),
            "the queue": attempt(lambda: Path(state_dir, "queue.db").read_bytes()),
            "another connection to the report queue": attempt(
                lambda: connect(f"{state_dir}/reports-{supervisor}-1.sock")
            ),
            "setuid": attempt(lambda: os.setuid(0)),
            "setresuid": attempt(lambda: os.setresuid(-1, 0, -1)),
            "setgid": attempt(lambda: os.setgid(0)),
            "setgroups": attempt(lambda: os.setgroups([0])),
            "chroot": attempt(lambda: os.chroot("/")),
            "run a program": attempt(lambda: os.execv("/bin/true", ["true"])),
            "run a program of its own": attempt(lambda: _run_own(liar.folder)),
            "a setuid program": attempt(lambda: os.execv("/bin/su", ["su"])),
            "a device": attempt(lambda: os.mknod(liar.folder / "null", 0o020666, os.makedev(1, 3))),
            "a pipe with a name": attempt(lambda: os.mkfifo(liar.folder / "fifo")),
            "a socket with a name": attempt(lambda: socket.socket(socket.AF_UNIX).bind(str(liar.folder / "s"))),
            "a symlink": attempt(lambda: os.symlink("/etc/shadow", liar.folder / "link")),
            "a port": attempt(lambda: listen(54321)),
            "any port": attempt(lambda: listen(0)),
            "a file outside of the folder": attempt(lambda: (home / "new").touch()),
            "a folder outside of it": attempt(lambda: (home / "new").mkdir()),
            "a start-up file": attempt(lambda: (home / ".profile").write_text("evil")),
            "a start-up file cut off": attempt(lambda: os.truncate(home / ".profile", 0)),
            "a start-up file removed": attempt(lambda: (home / ".profile").unlink()),
            "another in the place of it": attempt(lambda: _own_file(liar.folder).rename(home / ".profile")),
            "a link to it in the folder": attempt(lambda: os.link(home / ".profile", liar.folder / "link")),
            "more files": attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))),
            "more memory": attempt(lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))),
            "less nice": attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
            "a core": str(resource.getrlimit(resource.RLIMIT_CORE)),
        }
    )


def _own_file(folder: Path) -> Path:
    mine = folder / "mine"
    mine.touch()
    return mine


def _is_neighbour(process: Path) -> bool:
    try:
        return process.stat().st_uid == os.getuid() and int(process.name) != os.getpid()
    except OSError:
        return False


def _run_own(folder: Path) -> None:
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.execv(program, ["program"])


@lie
def ignores_grants(liar: Liar) -> None:
    """It works on, as far as one can see, and answers what it is asked, but keeps connections that others wait for."""
    liar.say(liar.started())
    data = b""
    while True:
        data += os.read(liar.orders.fileno(), 65536)
        *lines, data = data.split(b"\n")
        for line in lines:
            order = json.loads(line)["type"]
            if order == "ping":
                liar.say({"type": "pong"}, liar.progress())
            elif order == "grant":
                (liar.folder / "told").write_text('{"granted": true}')


@lie
def forges_the_log(liar: Liar) -> None:
    """Its task fails, with a reason that goes on as a log would."""
    words = "no\n2026-01-01 00:00:00,000 INFO max_tasks by root (uid 0): forged\x1b[2J"
    fields = {"code": "remote_missing", "message": words, "http_status": 404, "retry_after_s": None}
    liar.say(liar.report("failed", **fields, bytes_done=0, bytes_received=0, part=None))
    os._exit(0)


@lie
def tells_its_environment(liar: Liar) -> None:
    started_with = Path("/proc/self/environ")
    liar.tell(environment=dict(os.environ), started_with=attempt(started_with.read_bytes), umask=os.umask(0))


@lie
def asks_the_daemon(liar: Liar) -> None:
    """It may do what its user may: see and steer that user's tasks, not another's."""
    number, _, path = liar.order["url"].rpartition("/")[2].partition("-")
    answers = []
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(bytes.fromhex(path).decode())
        lines = peer.makefile("rb")
        lines.readline()
        for method, params in (("list", {}), ("status", {"id": int(number)}), ("list", {"all": True})):
            peer.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
            answers.append(json.loads(lines.readline()))
    owners = {task["owner"] for task in answers[0]["result"]["tasks"]}
    liar.tell(owners=sorted(owners), codes=[answer["error"]["data"]["code"] for answer in answers[1:]])


def exceed_quota(home: Path) -> None:
    """Have the disk refuse what lies behind the first bytes of a file, as for a user whose quota is exceeded."""

    pwrite, pwritev, splice = os.pwrite, os.pwritev, os.splice

    def check(end: int) -> None:
        if end > 100_000 and not (home / "more-quota").exists():
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def write(fd: int, data: Any, offset: int) -> int:
        check(offset + len(data))
        return pwrite(fd, data, offset)

    def write_all(fd: int, buffers: Any, offset: int, *flags: int) -> int:
        check(offset + sum(map(len, buffers)))
        return pwritev(fd, buffers, offset, *flags)

    def move(source: int, target: int, count: int, **more: Any) -> int:
        check(more.get("offset_dst", -count) + count)
        return splice(source, target, count, **more)

    os.pwrite, os.pwritev, os.splice = write, write_all, move


def start(
    orders: Connection, reports: Connection, queue_ident: str, key: str, confine: Callable[[int], None] | None
) -> int:
    """Be honest or not, by the name of the user; a liar was honest until it had opened its folder."""
    name = pwd.getpwuid(os.getuid()).pw_name
    if "quota" in name:
        exceed_quota(Path(pwd.getpwuid(os.getuid()).pw_dir))
    if "liar" not in name:
        status: int = honest.start(orders, reports, queue_ident, key, confine)
        return status
    liar = Liar(orders, reports, queue_ident, key)
    if confine is not None:
        confine(os.open(liar.folder, os.O_PATH | os.O_DIRECTORY))
    try:
        LIES[liar.order["url"].split("/")[3]](liar)
        time.sleep(60)
    except (OSError, EOFError) as error:
        print(f"liar: {error}", file=sys.stderr)
        time.sleep(60)
    return 0
