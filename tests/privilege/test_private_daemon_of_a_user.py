"""A daemon that is not root serves its own user (and root), and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.accounts import accounts
from support.daemon import AUTODL, REPO
from support.nginx import Nginx
from support.processes import marked
from support.waiting import wait_until


def test_it_downloads_as_its_user_and_refuses_others(place: Path, nginx: Nginx) -> None:
    served = nginx.file("privilege/private.bin", 20_000)
    with accounts("owner", "other") as users:
        owner, other = users["owner"], users["other"]
        folder = place / "daemon"
        folder.mkdir()
        os.chown(folder, owner.uid, owner.gid)
        folder.chmod(0o755)
        pid = os.fork()
        if pid == 0:
            os.setgroups(sorted(owner.groups))
            os.setresgid(owner.gid, owner.gid, owner.gid)
            os.setresuid(owner.uid, owner.uid, owner.uid)
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            environment = {"HOME": str(owner.home), "PATH": "/usr/bin:/bin", "AUTODL_TEST_MARK": folder.name}
            arguments = ["--socket", str(folder / "s"), "--state-dir", str(folder / "state")]
            os.execve(sys.executable, [sys.executable, str(REPO / "autodl.py"), "daemon", *arguments], environment)
        try:
            wait_until((folder / "s").is_socket, "it listens", seen=(folder / "log").read_text)
            [task_id] = owner.call(folder / "s", "add", urls=[served.url], dir=str(owner.home))["ids"]

            def finished() -> bool:
                return owner.call(folder / "s", "status", id=task_id)["state"] == "finished"

            wait_until(finished, "it is finished", seen=(folder / "log").read_text)
            assert (owner.home / "private.bin").stat().st_uid == owner.uid
            assert (folder / "s").stat().st_mode & 0o777 == 0o600
            by_root = subprocess.run(
                [*AUTODL, "add", "--socket", str(folder / "s"), served.url], capture_output=True, text=True
            )
            assert by_root.returncode == 5, "root may look and steer, but nothing can be downloaded as root here"
            assert f"uid {owner.uid}" in by_root.stderr
            (folder / "s").chmod(0o666)
            answer = other.first_answer(folder / "s")
            assert answer["error"]["data"]["code"] == "not_allowed"
        finally:
            os.kill(pid, 15)
            os.waitpid(pid, 0)
            wait_until(lambda: not marked(folder.name), "its processes end")
