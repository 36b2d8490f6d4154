"""Each worker writes to one folder: what that means for tasks of many folders, and for folders that are replaced."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.daemon import QUICK, Daemon, MakeDaemon
from support.nginx import Nginx
from support.waiting import wait_until

from autodl_lib.privilege.landlock import landlock_abi

ONE_AT_A_TIME = "max_tasks_num = 1\n" + QUICK

CONFINED = landlock_abi() > 0
"""Where the kernel has no Landlock, a worker serves all folders."""


@pytest.fixture
def single(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon(config=ONE_AT_A_TIME, name="single").start()


def save(daemon: Daemon, url: str, folder: Path, *more: str) -> int:
    return daemon.add_one(url, "--dir", str(folder), *more)


def saved(daemon: Daemon, url: str, folder: Path, *more: str) -> Path:
    task = daemon.await_state(save(daemon, url, folder, *more), "finished")
    return Path(task["dest"])


def workers_of(daemon: Daemon) -> set[int]:
    return {worker.pid for worker in daemon.family().workers}


def lost(daemon: Daemon) -> list[str]:
    """Return what the log says of workers that were not ended as they should be."""
    return [line for line in daemon.log().splitlines() if "was lost" in line or "broke the protocol" in line]


def test_a_folder_has_its_worker_and_the_next_task_there_finds_it(daemon: Daemon, nginx: Nginx, place: Path) -> None:
    url = nginx.file("each/found.bin", 1000).url
    saved(daemon, url, place / "a")
    first = workers_of(daemon)
    saved(daemon, url, place / "b")
    both = workers_of(daemon)
    assert len(first) == 1
    assert len(both) == (2 if CONFINED else 1)
    saved(daemon, url, place / "a")
    saved(daemon, url, place / "b")
    assert workers_of(daemon) == both


def test_one_slot_serves_many_folders_one_after_the_other(single: Daemon, nginx: Nginx, place: Path) -> None:
    served = nginx.file("each/many.bin", 1000)
    ids = [save(single, served.url, place / f"folder-{number % 4}") for number in range(24)]
    done = single.await_settled(ids)
    assert {task["state"] for task in done.values()} == {"finished"}
    for number in range(4):
        files = list((place / f"folder-{number}").iterdir())
        assert len(files) == 6
        assert {path.read_bytes() for path in files} == {served.data}
    assert lost(single) == []


def test_a_file_that_comes_first_waits_for_no_folder_full_of_small_ones(
    single: Daemon, nginx: Nginx, place: Path
) -> None:
    url = nginx.file("each/crowd.bin", 100).url
    with single.connect() as wire:
        crowd = wire.call("add", urls=[url] * 3000, dir=str(place / "crowd"))["ids"]
        single.await_state(crowd[50], "finished")
        [first] = wire.call("add", urls=[url], dir=str(place / "elsewhere"), priority=9)["ids"]
        single.await_state(first, "finished")
        assert single.status(crowd[-1])["state"] == "enqueued"
        wire.call("clear")
    assert lost(single) == []


@pytest.mark.parametrize(("slots", "connections", "per_host"), [(2, 8, 16), (10, 1, 1)])
def test_a_file_that_comes_first_does_not_wait_for_small_ones_that_have_all_connections_of_its_host(
    make_daemon: MakeDaemon, nginx: Nginx, place: Path, slots: int, connections: int, per_host: int
) -> None:
    url = nginx.file("each/crowd.bin", 100).url
    several = QUICK.replace("connections = 1\n", f"connections = {connections}\nconnections_per_host = {per_host}\n")
    daemon = make_daemon(config=f"max_tasks_num = {slots}\n" + several).start()
    with daemon.connect() as wire:
        crowds = [wire.call("add", urls=[url] * 3000, dir=str(place / "crowd"))["ids"] for _ in range(3)]
        daemon.await_state(crowds[0][50], "finished")
        [first] = wire.call("add", urls=[url], dir=str(place / "elsewhere"), priority=9)["ids"]
        daemon.await_state(first, "finished")
        assert daemon.status(crowds[-1][-1])["state"] == "enqueued"
        wire.call("clear")
    assert lost(daemon) == []


@pytest.mark.parametrize("how", ["removed", "made anew", "moved away and replaced by a link"])
def test_a_folder_that_was_replaced_between_two_tasks_is_the_new_one(
    single: Daemon, nginx: Nginx, place: Path, how: str
) -> None:
    served = nginx.file("each/replaced.bin", 1000)
    folder = place / "folder"
    saved(single, served.url, folder)
    folder.rename(place / "before")
    if how == "made anew":
        folder.mkdir()
    elif how != "removed":
        (place / "elsewhere").mkdir()
        folder.symlink_to(place / "elsewhere")
    ids = [save(single, served.url, folder) for _ in range(3)]
    assert {task["state"] for task in single.await_settled(ids).values()} == {"finished"}
    assert len(list(folder.iterdir())) == 3
    assert [path.name for path in (place / "before").iterdir()] == ["replaced.bin"]
    assert lost(single) == []


def test_a_part_file_is_removed_by_a_worker_of_its_own_folder(single: Daemon, nginx: Nginx, place: Path) -> None:
    """The one slot is held by an idle worker of another folder when the cancel comes."""
    slow = nginx.file("each/part.bin", 1_500_000)
    task_id = save(single, slow.slow_url, place / "parts")
    single.await_bytes(task_id)
    single.ok("pause", "--id", str(task_id))
    single.await_state(task_id, "paused")
    wait_until(lambda: any((place / "parts").iterdir()), "the part is kept", seen=single.log_end)
    saved(single, nginx.file("each/other.bin", 1000).url, place / "other")
    single.ok("cancel", str(task_id))
    wait_until(lambda: not any((place / "parts").iterdir()), "the part is removed", seen=single.log_end)


def test_an_administrator_may_have_workers_that_serve_all_folders(
    make_daemon: MakeDaemon, nginx: Nginx, place: Path
) -> None:
    url = nginx.file("each/all.bin", 1000).url
    daemon = make_daemon(config=QUICK + "[worker]\nconfine_to_folder = false\n").start()
    for name in ("a", "b", "c"):
        saved(daemon, url, place / name)
    [serves_all] = workers_of(daemon)
    daemon.config.write_text(QUICK)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "is reloaded" in daemon.log(), "it is read", seen=daemon.log_end)
    saved(daemon, url, place / "a")
    others = workers_of(daemon) - {serves_all}
    assert bool(others) is CONFINED, "one that is free to write anywhere gets no more tasks"
    assert lost(daemon) == []
