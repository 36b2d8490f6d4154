"""A worker that was taken over by what it downloaded: whatever it says or does, only its own task suffers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, REPO, Daemon
from support.nginx import Nginx
from support.rpc import Refused
from support.waiting import wait_until

from autodl_lib.privilege.landlock import landlock_abi

HERE = Path(__file__).parent

CONFIG = (
    QUICK.replace("[retry]", "[retry]\nmax_attempts = 1")
    + """
[worker]
answer_timeout_s = 3
memory_bytes = 268435456
files = 512
"""
)

LIARS = ("lying_entry.py", "lying_reports.py")
LIES = [lie for file in LIARS for lie in re.findall(r"^@lie\ndef (\w+)\(", (HERE / file).read_text(), re.MULTILINE)]
PROBES = {"looks_around", "asks_the_daemon", "tells_its_environment", "forges_the_log", "ignores_grants"}
"""Lies with a test of their own."""

LEAVES_BY_ITSELF = {
    "ends_well",
    "ends_as_if_there_were_no_queue",
    "ends_as_if_there_were_no_account",
    "kills_itself",
    "leaves_a_child",
    "child_speaks_for_it",
    "eats_memory",
    "other_methods",
}
SILENT = {
    "other_worker",
    "nobody_s_text",
    "garbage_flood",
    "text_over_the_limit",
    "pickle_on_the_wire",
    "entity_bomb",
    "external_entity",
    "no_xml",
    "endless_frame",
    "half_a_frame",
    "never_reports",
    "stops_itself",
    "closes_its_reports",
    "closes_its_orders",
}
"""Lies that no report shows: the worker is found out because it does not answer. All others break the protocol."""


class LyingDaemon(Daemon):
    """A daemon from a copy of the code, in which the workers of users named *liar* lie."""

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the copy."""
        code = self.folder / "code"
        shutil.copytree(REPO / "autodl_lib", code / "autodl_lib", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPO / "autodl.py", code)
        entry = code / "autodl_lib" / "worker" / "entry.py"
        entry.rename(entry.with_name("honest_entry.py"))
        shutil.copy(HERE / "lying_entry.py", entry)
        for beside in ("liar.py", "lying_reports.py"):
            shutil.copy(HERE / beside, entry.with_name(beside))
        command = [sys.executable, str(code / "autodl.py"), "daemon", "4", "--socket", str(self.socket)]
        command += ["--state-dir", str(self.state_dir), "--config", str(self.config)]
        environment = {**self.environment(), "PYTHONPATH": str(code)}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/"
            )
        return self.process


@dataclass
class Stage:
    """One daemon through which all lies go, and its users."""

    daemon: LyingDaemon
    liar: User
    honest: User
    folder: Path
    nginx: Nginx
    limited: User
    ids: list[int] = field(default_factory=list)

    def tell(self, lie: str, suffix: str = "") -> int:
        """Queue the task that lies."""
        for entry in self.folder.iterdir():
            entry.unlink()
        url = f"http://127.0.0.1:1/{lie.replace('_', '-')}/{suffix}"
        [task_id] = self.liar.call(self.daemon.socket, "add", urls=[url], dir=str(self.folder))["ids"]
        assert isinstance(task_id, int)
        return task_id

    def told(self) -> dict[str, Any]:
        """Return what the liar found out."""
        found = json.loads((self.folder / "told").read_text())
        assert isinstance(found, dict)
        return found

    def start_honest(self) -> tuple[int, bytes]:
        """Queue a task of somebody else."""
        served = self.nginx.file(f"lies/{secrets.token_hex(4)}.bin", 300_000, rate="300k")
        url = served.slow_url
        [task_id] = self.honest.call(self.daemon.socket, "add", urls=[url])["ids"]
        return task_id, served.data


@pytest.fixture(scope="module")
def stage(nginx: Nginx) -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="autodl-lies-"))
    folder.chmod(0o755)
    with accounts("liar", "honest", "quota") as users:
        daemon = LyingDaemon(folder, config=CONFIG)
        mine = folder / "of-liar"
        mine.mkdir()
        os.chown(mine, users["liar"].uid, users["liar"].gid)
        try:
            daemon.start()
            yield Stage(daemon, users["liar"], users["honest"], mine, nginx, users["quota"])
        finally:
            assert daemon.end_all() == []
    shutil.rmtree(folder)


def expect_the_liar_alone_to_suffer(stage: Stage, task_id: int, honest: tuple[int, bytes]) -> None:
    daemon = stage.daemon
    supervisor = daemon.pid
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] == "worker_lost", task
    assert task["dest"] is None
    assert task["dir"] == str(stage.folder)
    other = daemon.await_state(honest[0], "finished")
    assert Path(other["dest"]).read_bytes() == honest[1]
    assert other["attempts"] == 1
    assert (daemon.process.poll() if daemon.process else 0) is None
    assert daemon.pid == supervisor
    wait_until(
        lambda: not processes_of(stage.liar), "no process of the liar is left", seen=lambda: stage.daemon.log_end()
    )
    assert re.findall(r"Traceback|internal error|never awaited|the report queue ended", daemon.log()) == []


def processes_of(user: User) -> list[int]:
    found = []
    for process in psutil.process_iter(["uids", "status"]):
        uids = process.info["uids"]
        if uids and uids.real == user.uid and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie not in PROBES])
def test_a_worker_that_lies_loses_its_task_and_harms_nobody_else(stage: Stage, lie: str) -> None:
    before = len(stage.daemon.log())
    honest = stage.start_honest()
    stage.daemon.await_bytes(honest[0])
    expect_the_liar_alone_to_suffer(stage, stage.tell(lie), honest)
    said = stage.daemon.log()[before:]
    assert ("broke the protocol" in said) == (lie not in SILENT | LEAVES_BY_ITSELF), said
    assert (f"of uid {stage.liar.uid} does not answer" in said) == (lie in SILENT), said
    if lie in ("leaves_a_child", "child_speaks_for_it"):
        assert "was left behind by a worker and is killed" in said
    if lie == "other_methods":
        assert stage.told() == {"returned": None}
    if lie == "eats_memory":
        assert 0 < stage.told()["mebibytes"] < 256
    assert not (stage.folder / "exploded").exists()


def test_every_lie_is_in_the_list() -> None:
    assert len(LIES) == len(set(LIES)) > 40
    assert set(LIES) >= PROBES | SILENT | LEAVES_BY_ITSELF


def test_a_worker_that_was_taken_over_changes_nothing_but_the_files_of_its_task_s_folder(stage: Stage) -> None:
    bystander = stage.liar.do(start_bystander)
    profile = stage.liar.home / ".profile"
    stage.liar.do(lambda: profile.write_text("innocent"))
    try:
        honest = stage.start_honest()
        suffix = f"{stage.daemon.pid}-{str(stage.daemon.state_dir).encode().hex()}"
        task_id = stage.tell("looks_around", suffix)
        task = stage.daemon.await_state(task_id, "failed")
        assert task["error"]["code"] == "worker_lost", task
        found = stage.told()
        stage.daemon.await_state(honest[0], "finished")
    finally:
        os.kill(bystander, 9)
    assert profile.read_text() == "innocent" or not landlock_abi()
    confined = landlock_abi()
    allowed = {what for what, how in found.items() if how == "worked"}
    # What the user may do anyway and Landlock can't tell from a download, or doesn't know in this version.
    tolerated = {"any port"}
    if confined < 6:
        tolerated |= {"kill a process of the user"}
    if confined < 4:
        tolerated |= {"a port"}
    if confined < 3:
        tolerated |= {"a start-up file cut off"}
    if confined < 1:
        tolerated |= {what for what in found if "start-up file" in what or "the place of it" in what}
        tolerated |= {"a file outside of the folder", "a folder outside of it", "a link to it in the folder"}
        tolerated |= {"a pipe with a name", "a socket with a name", "a symlink"}
        tolerated |= {"trace a process of the user", "memory of a process of the user"}
    assert allowed <= tolerated, found
    assert found["a core"] == "(0, 0)"
    assert found["run a program"] == "Permission denied"


def test_no_word_of_a_worker_begins_a_line_of_the_daemon_s_log(stage: Stage) -> None:
    task = stage.daemon.await_state(stage.tell("forges_the_log"), "failed")
    assert "forged" in task["error"]["message"]
    found = [line for line in stage.daemon.log().splitlines() if "forged" in line]
    assert len(found) == 1
    assert f"INFO task {task['id']} failed: no?2026" in found[0]
    assert "\x1b" not in found[0]


def test_a_worker_that_keeps_connections_which_others_wait_for_is_ended(stage: Stage) -> None:
    def add(user: User, url: str) -> int:
        [task_id] = user.call(stage.daemon.socket, "add", urls=[url], dir=str(stage.folder), connections=16)["ids"]
        assert isinstance(task_id, int)
        return task_id

    for entry in stage.folder.iterdir():
        entry.unlink()
    liar = add(stage.liar, "http://127.0.0.1:1/ignores-grants/")  # it may use all that one host may have
    stage.daemon.await_state(liar, "downloading")
    other = add(stage.honest, "http://127.0.0.1:1/x")
    assert stage.daemon.await_state(liar, "failed")["error"]["code"] == "worker_lost"
    assert stage.told() == {"granted": True}
    assert f"does not answer a grant for task {liar}" in stage.daemon.log()
    # Refused by the host, which it has asked: nothing listens there.
    assert stage.daemon.await_task(other, "tried", lambda task: task["error"])["error"]["code"] != "worker_lost"


def test_a_worker_s_environment_is_its_user_s_and_short(stage: Stage) -> None:
    expect_the_liar_alone_to_suffer(stage, stage.tell("tells_its_environment"), stage.start_honest())
    found = stage.told()
    environment = {name: value for name, value in found["environment"].items() if name not in ("LANG", "LC_ALL", "TZ")}
    name, home = stage.liar.name, str(stage.liar.home)
    assert environment == {"HOME": home, "USER": name, "LOGNAME": name, "PATH": "/usr/bin:/bin"}
    assert found["started_with"] == "Permission denied"  # undumpable: not even its own
    assert found["umask"] == 0o022


def test_a_user_whose_quota_is_exceeded_waits_for_room_and_nobody_else_does(stage: Stage) -> None:
    """The disk says EDQUOT to their writes alone."""
    served = stage.nginx.file("lies/quota.bin", 300_000)
    [task_id] = stage.limited.call(stage.daemon.socket, "add", urls=[served.slow_url])["ids"]
    honest = stage.start_honest()
    task = stage.daemon.await_task(task_id, "without room", lambda task: task["error"])
    assert task["error"]["code"] == "disk_full", task
    assert "quota" in task["error"]["message"].lower()
    stage.daemon.await_state(honest[0], "finished")
    (stage.limited.home / "more-quota").touch()
    with contextlib.suppress(Refused):  # it may have gone on by itself
        stage.limited.call(stage.daemon.socket, "retry", ids=[task_id])
    done = stage.daemon.await_state(task_id, "finished")
    assert Path(done["dest"]).read_bytes() == served.data


def start_bystander() -> int:
    """Leave a process of this user behind that has nothing to do with any download; return its pid."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        child = subprocess.Popen(["sleep", "300"], start_new_session=True, close_fds=True)
        os.write(writer, str(child.pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


def test_a_worker_that_was_taken_over_is_no_more_than_its_user_to_the_daemon(stage: Stage) -> None:
    honest = stage.start_honest()
    suffix = f"{honest[0]}-{str(stage.daemon.socket).encode().hex()}"
    task_id = stage.tell("asks_the_daemon", suffix)
    expect_the_liar_alone_to_suffer(stage, task_id, honest)
    found = stage.told()
    assert found == {"owners": [stage.liar.name], "codes": ["no_such_task", "not_allowed"]}
