"""Rounds: every program once in each, in a new order, from the same start, its files checked afterwards.

Runs as: the bench.  Talks to: the programs that it starts and waits for.
Invariants: time runs from the first command's start to the last one's exit. Before that the folder is new and empty,
what was written earlier is on disk, the server is reset; after that, and untimed, every file is hashed.
How it fails: a program that fails, is too slow or saves something else has that said in its row and no time.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cases import Scene
from ours import Ours
from peers import Program
from support.waiting import wait_until

_SAID_BYTES = 2000


@dataclass(slots=True, kw_only=True)
class Runs:
    """What one program did: seconds of each run that went well, and what was wrong with the others."""

    program: Program
    seconds: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often, in which orders, and how long a program may take."""

    rounds: int
    seed: int
    timeout_s: float


def measure(scene: Scene, ours: Ours, plan: Plan) -> list[Runs]:
    """Run a scene's programs; return their runs in the scene's order."""
    ours.saved.mkdir()
    spread_out(ours.saved)
    table = [Runs(program=program) for program in scene.programs]
    order = [runs for runs in table if runs.program.is_installed]
    shuffler = random.Random(plan.seed)
    numbers = itertools.count()
    for _ in range(plan.rounds):
        shuffler.shuffle(order)
        for runs in order:
            folder = ours.saved / str(next(numbers))
            _prepare(scene, folder)
            watching = ours.watched() if runs.program.ours else contextlib.nullcontext()
            with watching:
                seconds, trouble = _timed(runs.program, folder, ours.environment(), plan.timeout_s)
            if trouble is not None and runs.program.ours:
                ours.give_up()
            trouble = trouble or _wrong(folder, scene.expected)
            if trouble is None:
                runs.seconds.append(seconds)
            else:
                runs.troubles.append(trouble)
    shutil.rmtree(ours.saved, ignore_errors=True)
    return table


def spread_out(folder: Path) -> None:
    """Have each new folder in `folder` begin in a part of the disk of its own, where ext4 is what it is on.

    For minutes after files were removed, ext4 doesn't use their inodes again, and whoever makes a file beside them pays
    for the search: what one program left would slow down the next by up to a millisecond a file. Which part it is, ext4
    takes from the new folder's name: no two runs may have the same. Source: fs/ext4/ialloc.c, chattr(1) +T.
    """
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["chattr", "+T", folder], check=False, stderr=subprocess.DEVNULL)


def _prepare(scene: Scene, folder: Path) -> None:
    def is_removed() -> bool:
        for earlier in folder.parent.iterdir():
            shutil.rmtree(earlier, ignore_errors=True)
        return not any(folder.parent.iterdir())

    # A worker may be removing parts of a cancelled task there.
    wait_until(is_removed, "the folder of the last program is removed")
    folder.mkdir()
    os.sync()
    scene.reset()


def _timed(program: Program, folder: Path, environment: dict[str, str], timeout_s: float) -> tuple[float, str | None]:
    """Run a program's commands at the same time; return seconds and what went wrong."""
    said = folder.parent.with_suffix(".said")
    too_slow = threading.Event()
    processes: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        too_slow.set()
        for process in processes:
            process.kill()

    # Popen.wait(timeout) polls, up to 50 ms late; a plain wait doesn't.
    timer = threading.Timer(timeout_s, end)
    timer.start()
    with said.open("wb") as output:
        began_mono = time.monotonic()
        for command in program.commands:
            processes.append(
                subprocess.Popen(
                    command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            )
        statuses = [process.wait() for process in processes]
        seconds = time.monotonic() - began_mono
    timer.cancel()
    if too_slow.is_set():
        return seconds, f"ended after {timeout_s:g} s"
    if any(statuses):
        text = said.read_bytes()[-_SAID_BYTES:].decode(errors="replace").strip()
        return seconds, f"exit status {max(statuses, key=abs)}: {text.splitlines()[-1] if text else 'it said nothing'}"
    return seconds, None


def _wrong(folder: Path, expected: dict[str, str]) -> str | None:
    """Return what is wrong with the files that were saved."""
    there = {path.name for path in folder.iterdir()}
    if there != set(expected):
        missing, more = sorted(set(expected) - there), sorted(there - set(expected))
        return f"WRONG FILES: {len(missing)} missing {missing[:3]}, {len(more)} that don't belong {more[:3]}"
    for name, digest in expected.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return f"WRONG BYTES in {name}"
    return None
