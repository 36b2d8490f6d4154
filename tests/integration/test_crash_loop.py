"""A hundred and more kill -9 of random processes at random moments: every acknowledged task ends whole, once, alone.

AUTODL_CRASH_KILLS sets how many kills, AUTODL_CRASH_SEED which; the seed of a run is printed with its failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time

import psutil
import pytest
from support.daemon import SETTLED, MakeDaemon
from support.nginx import Nginx
from support.processes import marked
from support.waiting import NeverCame, wait_until

KILLS = int(os.environ.get("AUTODL_CRASH_KILLS", "110"))
SEED = int(os.environ.get("AUTODL_CRASH_SEED") or random.randrange(10**9))

CONFIG = """
max_tasks_num = 6
[transfer]
min_free_bytes = 0
[retry]
max_attempts = 0
first_delay_s = 0.05
max_delay_s = 0.2
"""
BATCH = 10


@pytest.mark.timeout(900)
def test_every_acknowledged_task_ends_whole_and_once_whatever_is_killed(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    print(f"AUTODL_CRASH_SEED={SEED}")
    dice = random.Random(SEED)
    daemon = make_daemon(config=CONFIG).start()
    digest: dict[int, tuple[str, str]] = {}
    kills: dict[str, int] = {}
    added = 0
    while sum(kills.values()) < KILLS:
        if sum(1 for task in daemon.tasks() if task["state"] not in SETTLED) < 3 * BATCH:
            served = []
            for _ in range(BATCH):
                size = dice.choice([0, 1, 1000, 20_000, 20_000, 200_000, 1_000_000])
                served.append(nginx.file(f"loop/{added}.bin", size, rate="1000k"))
                added += 1
            with daemon.connect() as wire:
                urls = [one.slow_url if dice.random() < 0.5 else one.url for one in served]
                ids = wire.call("add", urls=urls, dir=str(daemon.files))["ids"]
            for task_id, one in zip(ids, served, strict=True):
                digest[task_id] = (one.name.rpartition("/")[2], one.sha256)
        time.sleep(dice.uniform(0, 0.35))  # random moments are the point here
        found = daemon.family()
        victims = {
            "supervisor": [psutil.Process(daemon.pid)],
            "worker": list(found.workers),
            "manager": [found.manager] if found.manager else [],
            "forkserver": [found.forkserver] if found.forkserver else [],
        }
        kind = dice.choices(list(victims), weights=[2, 5, 2, 1])[0]
        if not victims[kind]:
            continue  # it is on its way: where the machine is slow, none would ever come if the supervisor died for it
        with contextlib.suppress(psutil.NoSuchProcess):
            dice.choice(victims[kind]).kill()
        kills[kind] = kills.get(kind, 0) + 1
        if kind == "supervisor":
            daemon.kill()
            daemon.start()
    print(f"kills: {kills}; tasks: {len(digest)}")
    assert set(kills) == {"supervisor", "worker", "manager", "forkserver"} or KILLS < 100

    def unfinished() -> list[dict[str, object]]:
        return [task for task in daemon.tasks() if task["state"] != "finished"]

    try:
        wait_until(lambda: not unfinished(), "all tasks are finished")
    except NeverCame:
        raise AssertionError((SEED, unfinished(), daemon.log_end())) from None
    tasks = {task["id"]: task for task in daemon.tasks()}
    assert tasks.keys() == digest.keys()
    for task_id, (name, sha256) in digest.items():
        assert tasks[task_id]["dest"] == str(daemon.files / name), SEED
        assert hashlib.sha256((daemon.files / name).read_bytes()).hexdigest() == sha256, (SEED, name)
    # Nothing twice, and nothing that was only on the way: exactly one file a task.
    assert daemon.names() == sorted(name for name, _ in digest.values()), SEED
    assert daemon.stop() == 0
    wait_until(lambda: marked(daemon.mark) == [], "no process is left", seen=lambda: marked(daemon.mark))


def test_many_small_files_survive_kills_around_their_publication(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    """Small files are mostly between ready, publish, rename and report: that is where these kills fall."""
    print(f"AUTODL_CRASH_SEED={SEED}")
    dice = random.Random(SEED)
    daemon = make_daemon(config=CONFIG).start()
    served = [nginx.file(f"publish/{number}.bin", 500) for number in range(600)]
    with daemon.connect() as wire:
        ids = wire.call("add", urls=[one.url for one in served], dir=str(daemon.files))["ids"]
    for _ in range(max(1, KILLS // 8)):
        time.sleep(dice.uniform(0, 0.04))  # random moments are the point here
        workers = daemon.family().workers
        if workers and dice.random() < 0.7:
            with contextlib.suppress(psutil.NoSuchProcess):
                dice.choice(workers).kill()
        else:
            daemon.kill()
            daemon.start()
    wait_until(
        lambda: all(task["state"] == "finished" for task in daemon.tasks()), "all are finished", seen=daemon.log_end
    )
    tasks = {task["id"]: task for task in daemon.tasks()}
    for task_id, one in zip(ids, served, strict=True):
        name = one.name.rpartition("/")[2]
        assert tasks[task_id]["dest"] == str(daemon.files / name), SEED
        assert (daemon.files / name).read_bytes() == one.data, SEED
    assert len(daemon.names()) == len(served), (SEED, daemon.hidden_files())
