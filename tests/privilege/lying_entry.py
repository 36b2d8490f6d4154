"""What a worker of a user named *liar* runs in place of the real code: the lie that its task's URL names.

Everybody else's workers are honest. The tests copy autodl and put this in the place of worker/entry.py.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import pickle
import pwd
import resource
import signal
import socket
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# As in the real entry, all that is needed is imported while it can be read; these are the test's own needs.
honest = importlib.import_module("autodl_lib.worker.honest_entry")

LIES: dict[str, Callable[[Liar], None]] = {}


class Liar:
    """One hostile worker, which has been given a task."""

    def __init__(self, orders: Connection, reports: Connection, ident: str, key: str) -> None:
        self.orders, self.reports, self.ident, self.key = orders, reports, ident, key
        self.ask((None, "accept_connection", ("liar",), {}))
        self.say({"type": "bound", "lease": key})
        self.order: dict[str, Any] = {}
        data = b""
        while "lease" not in self.order:
            data += os.read(orders.fileno(), 65536)
            for line in data.splitlines():
                document = json.loads(line)
                if document.get("type") == "assign":
                    self.order = document
        self.lease = self.order["lease"]
        self.folder = Path(self.order["dir"])

    def ask(self, request: tuple[Any, ...]) -> bytes:
        self.reports.send_bytes(xmlrpc.client.dumps((request,), None, None, None, True).encode())
        return self.reports.recv_bytes()

    def put(self, text: Any) -> bytes:
        return self.ask((self.ident, "put", (text,), {}))

    def say(self, *reports: dict[str, Any], key: str | None = None) -> None:
        self.put(f'{{"worker":"{key or self.key}","reports":{json.dumps(list(reports))}}}')

    def report(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "lease": self.lease, **fields}

    def started(self, **fields: Any) -> dict[str, Any]:
        values = {"dir": "/tmp", "name": "x", "part": ".x.autodl-part", "bytes_done": 0, "bytes_total": 9}
        return self.report("started", **{**values, "http_status": 200, **fields})

    def ready(self, **fields: Any) -> dict[str, Any]:
        identity = {"inode": 1, "size_bytes": 1, "mtime_ns": 1}
        values = {"dir": "/tmp", "name": "x", "part": ".x.autodl-part", "identity": identity, "bytes_received": 1}
        return self.report("ready", **{**values, "http_status": 200, **fields})

    def progress(self, **fields: Any) -> dict[str, Any]:
        values = {"bytes_done": 1, "bytes_total": 9, "speed_bps": 1, "connections": 1}
        return self.report("progress", **{**values, **fields})

    def finished(self, **fields: Any) -> dict[str, Any]:
        return self.report("finished", **{"dest": "/etc/shadow", "size_bytes": 1, **fields})

    def tell(self, **found: Any) -> None:
        """Leave a note for the test, and end."""
        note = self.folder / "told.new"
        note.write_text(json.dumps(found))
        note.rename(self.folder / "told")
        os._exit(3)


def lie(act: Callable[[Liar], None]) -> Callable[[Liar], None]:
    LIES[act.__name__.replace("_", "-")] = act
    return act


# --- reports that break the rules ---


@lie
def finished_at_once(liar: Liar) -> None:
    liar.say(liar.finished())


@lie
def finished_unpublished(liar: Liar) -> None:
    liar.say(liar.started(), liar.ready(), liar.finished())


@lie
def forged_sha256(liar: Liar) -> None:
    liar.say(liar.finished(sha256="x" * 63 + "\n"))


@lie
def ready_twice(liar: Liar) -> None:
    liar.say(liar.ready(), liar.ready())


@lie
def progress_before_start(liar: Liar) -> None:
    liar.say(liar.progress())


@lie
def halted_unasked(liar: Liar) -> None:
    liar.say(liar.started(), liar.report("halted", bytes_done=1, bytes_received=1, part=None))


@lie
def current_unasked(liar: Liar) -> None:
    liar.say(liar.report("current", dest="/x", size_bytes=1, http_status=304))


@lie
def discarded_unasked(liar: Liar) -> None:
    liar.say(liar.report("discarded"))


@lie
def yielded_unasked(liar: Liar) -> None:
    liar.say(liar.report("yielded", connections=[0]))


@lie
def returned_though_alone(liar: Liar) -> None:
    """To be given it again, and again."""
    liar.say(liar.report("returned"))


@lie
def bound_twice(liar: Liar) -> None:
    liar.say({"type": "bound", "lease": liar.key})


@lie
def pong_unasked(liar: Liar) -> None:
    liar.say({"type": "pong"})


@lie
def guessed_lease(liar: Liar) -> None:
    liar.say({**liar.finished(), "lease": "0123456789abcdef"})


@lie
def no_lease(liar: Liar) -> None:
    liar.say({"type": "finished", "dest": "/x", "size_bytes": 1})


@lie
def unknown_kind(liar: Liar) -> None:
    liar.say(liar.report("configure", settings={}))


@lie
def unknown_field(liar: Liar) -> None:
    liar.say(liar.started(uid=0))


@lie
def wrong_type(liar: Liar) -> None:
    liar.say(liar.started(bytes_done="1"))


@lie
def boolean_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_done=True))


@lie
def negative_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_done=-1))


@lie
def number_beyond_all(liar: Liar) -> None:
    liar.say(liar.started(), liar.progress(bytes_done=2**200))


@lie
def inode_beyond_all(liar: Liar) -> None:
    liar.say(liar.ready(identity={"inode": 2**63, "size_bytes": 1, "mtime_ns": 1}))


@lie
def not_a_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_total=float("nan")))


@lie
def long_word(liar: Liar) -> None:
    liar.say(liar.started(name="x" * 60_000))


@lie
def zero_byte(liar: Liar) -> None:
    liar.say(liar.started(name="a\0b", dir="/tmp/\ud800"), liar.finished())


@lie
def report_that_is_a_list(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[[[]],null,7]}}')


@lie
def many_notes(liar: Liar) -> None:
    for _ in range(30):
        liar.say(*[liar.report("note", text="x" * 400)] * 30)
    time.sleep(60)


# --- texts that are no reports ---


@lie
def malformed_json(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[')


@lie
def deep_json(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":{"[" * 30_000}')


@lie
def long_digits(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[{"9" * 60_000}]}}')


@lie
def two_keys(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","worker":"{"0" * 16}","reports":[]}}')


@lie
def no_list(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":{{}}}}')


@lie
def other_worker(liar: Liar) -> None:
    for number in range(500):
        liar.say(liar.finished(), key=f"{number:016x}")
    time.sleep(60)


@lie
def nobody_s_text(liar: Liar) -> None:
    for _ in range(500):
        liar.put("x" * 60_000)
    time.sleep(60)


@lie
def progress_flood(liar: Liar) -> None:
    liar.say(liar.started())
    while True:
        liar.say(*[liar.progress()] * 300)


@lie
def garbage_flood(liar: Liar) -> None:
    while True:
        liar.put("x" * 65_000)


# --- the report queue's process ---


@lie
def text_over_the_limit(liar: Liar) -> None:
    assert b"#RETURN" not in liar.put("x" * 65_537)
    time.sleep(60)


@lie
def other_methods(liar: Liar) -> None:
    for request in (
        (liar.ident, "drain", ("", 0.0), {}),
        (liar.ident, "drain", (None, 0.0), {}),
        (liar.ident, "drain", ("é", 0.0), {}),
        (liar.ident, "__init__", ("secret",), {}),
        (liar.ident, "__class__", (), {}),
        (liar.ident, "_texts", (), {}),
        (liar.ident, "#GETVALUE", (), {}),
        (liar.ident, "__str__", (), {}),
        (liar.ident, ["put"], (), {}),
        (None, "shutdown", (), {}),
        (None, "create", ("reports",), {}),
        ("0", "debug_info", (), {}),
        (liar.ident, "put", (["x"],), {}),
        (liar.ident, "put", (), {"text": {"a": 1}}),
    ):
        reply = liar.ask(request)
        if b"#RETURN" in reply:
            liar.tell(returned=repr(request), reply=reply.decode()[:3000])
    liar.tell(returned=None)


@lie
def pickle_on_the_wire(liar: Liar) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {liar.folder}/exploded",)

    liar.reports.send_bytes(pickle.dumps(Bomb()))
    time.sleep(60)


@lie
def entity_bomb(liar: Liar) -> None:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    liar.reports.send_bytes(
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{entities}]>'
        "<methodCall><methodName>&a11;</methodName></methodCall>".encode()
    )
    time.sleep(60)


@lie
def external_entity(liar: Liar) -> None:
    liar.reports.send_bytes(
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/shadow">]><methodCall><params><param><value><array><data>'
        b"<value><string>&e;</string></value></data></array></value></param></params></methodCall>"
    )
    time.sleep(60)


@lie
def no_xml(liar: Liar) -> None:
    liar.reports.send_bytes(os.urandom(100_000))
    time.sleep(60)


@lie
def endless_frame(liar: Liar) -> None:
    os.write(liar.reports.fileno(), b"\xff\xff\xff\xff" + (2**40).to_bytes(8, "big"))
    chunk = b"x" * 65536
    for _ in range(4000):
        os.write(liar.reports.fileno(), chunk)
    time.sleep(60)


@lie
def half_a_frame(liar: Liar) -> None:
    os.write(liar.reports.fileno(), (1000).to_bytes(4, "big") + b"<")
    time.sleep(60)


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
        os._exit(0)
    while not (liar.folder / "child").exists():
        time.sleep(0.01)
    os._exit(0)


@lie
def child_speaks_for_it(liar: Liar) -> None:
    """The worker ends; what it forked goes on with its connection."""
    if os.fork() == 0:
        time.sleep(0.3)
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
            "more files": attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))),
            "more memory": attempt(lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))),
            "less nice": attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
            "a core": str(resource.getrlimit(resource.RLIMIT_CORE)),
        }
    )


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


def start(orders: Connection, reports: Connection, queue_ident: str, key: str) -> int:
    """Be honest or not, by the name of the user."""
    name = pwd.getpwuid(os.getuid()).pw_name
    if "quota" in name:
        exceed_quota(Path(pwd.getpwuid(os.getuid()).pw_dir))
    if "liar" not in name:
        status: int = honest.start(orders, reports, queue_ident, key)
        return status
    liar = Liar(orders, reports, queue_ident, key)
    try:
        LIES[liar.order["url"].split("/")[3]](liar)
        time.sleep(60)
    except (OSError, EOFError) as error:
        print(f"liar: {error}", file=sys.stderr)
        time.sleep(60)
    return 0
