"""What can go wrong with a download: each has its code, its sentence, and leaves no half file under a final name."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, MakeDaemon
from support.nginx import Nginx
from support.waiting import wait_until


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "autodl-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/fail/nowhere", 404, "remote_missing"), ("/status/403", 403, "authentication")],
)
def test_an_error_page_is_never_saved(daemon: Daemon, nginx: Nginx, path: str, status: int, code: str) -> None:
    task_id = daemon.add_one(nginx.base + path)
    task = daemon.await_state(task_id, "failed")
    assert (task["http_status"], task["error"]["code"], task["dest"]) == (status, code, None)
    assert str(status) in task["error"]["message"]
    assert (task["attempts"], daemon.names()) == (1, [])


def test_a_server_error_is_tried_again_until_the_attempts_are_used_up(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 0.05\nmax_delay_s = 0.1\nmax_attempts = 3\n").start()
    task = daemon.await_state(daemon.add_one(f"{nginx.base}/status/500"), "failed")
    assert (task["attempts"], task["http_status"], task["error"]["code"]) == (3, 500, "server_busy")
    assert daemon.json("stats")["responses"] == {"500": 3, "total": 3}
    assert daemon.names() == []


def test_a_host_that_is_not_there_is_tried_again_later(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n").start()
    task = daemon.await_state(daemon.add_one("http://127.0.0.1:1/file"), "retrying")
    assert task["error"]["code"] == "connect"
    assert "127.0.0.1" in task["error"]["message"]
    assert task["retry_at"] > task["created_at"]
    assert "connect" in daemon.ok("status", str(task["id"]))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "unsupported scheme 'file'"),
        ("gopher://localhost/x", "unsupported scheme 'gopher'"),
        ("http://", "names no host"),
        ("http://a b/", "space"),
        ("http://host:99999/x", "not a URL"),
        ("no-url-at-all", "not a URL"),
        ("", "the URL is empty"),
    ],
)
def test_a_bad_url_is_a_usage_error_that_queues_nothing(daemon: Daemon, url: str, words: str) -> None:
    done = daemon.autodl("add", "http://127.0.0.1:1/good", url, "-d", str(daemon.files))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("autodl: ")
    assert words in done.stderr
    assert daemon.tasks() == []


def test_the_daemon_refuses_a_bad_url_by_itself(daemon: Daemon) -> None:
    with daemon.connect() as wire, pytest.raises(Exception, match="bad_url: unsupported scheme"):
        wire.call("add", urls=["http://127.0.0.1:1/good", "file:///etc/passwd"], dir="/tmp")
    assert daemon.tasks() == []


def test_a_folder_that_can_not_be_written_to_fails_the_task(daemon: Daemon, nginx: Nginx, place: Path) -> None:
    with mounted(place / "read-only", "ro") as folder:
        task = daemon.await_state(daemon.add_one(nginx.file("fail/ro", 10).url, "-d", str(folder)), "failed")
    assert task["error"]["code"] == "permission"
    assert "Read-only file system" in task["error"]["message"]


def test_a_file_in_the_place_of_the_folder_fails_the_task(daemon: Daemon, nginx: Nginx, place: Path) -> None:
    (place / "file").write_text("mine")
    task = daemon.await_state(daemon.add_one(nginx.file("fail/dir", 10).url, "-d", str(place / "file")), "failed")
    assert task["error"]["code"] == "folder"
    assert (place / "file").read_text() == "mine"


def test_a_full_disk_is_tried_again_and_the_download_ends_when_there_is_space(
    daemon: Daemon, nginx: Nginx, place: Path
) -> None:
    served = nginx.file("fail/big.bin", 5_000_000)
    with mounted(place / "small", "size=2m") as folder:
        task_id = daemon.add_one(served.url, "-d", str(folder))
        task = daemon.await_state(task_id, "retrying")
        assert task["error"]["code"] == "disk_full"
        assert "big.bin" not in daemon.names(folder)
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
        daemon.await_state(task_id, "finished")
        assert (folder / "big.bin").read_bytes() == served.data
        assert daemon.names(folder) == ["big.bin"]


def test_space_that_must_stay_free_stays_free(make_daemon: MakeDaemon, nginx: Nginx, place: Path) -> None:
    config = "[transfer]\nmin_free_bytes = 1500000\n[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n"
    daemon = make_daemon(config=config).start()
    with mounted(place / "small", "size=2m") as folder:
        task = daemon.await_state(daemon.add_one(nginx.file("fail/mid", 1_000_000).url, "-d", str(folder)), "retrying")
        assert task["error"]["code"] == "disk_full"
        daemon.await_state(daemon.add_one(nginx.file("fail/little", 1000).url, "-d", str(folder)), "finished")
        daemon.stop()


def test_a_taken_name_gets_a_number(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("fail/name.tar.gz", 100)
    (daemon.files / "name.tar.gz").write_text("mine")
    first, second = (daemon.await_state(daemon.add_one(served.url), "finished") for _ in range(2))
    assert (daemon.files / "name.tar.gz").read_text() == "mine"
    assert first["dest"] != second["dest"]
    for task in (first, second):
        assert Path(task["dest"]).read_bytes() == served.data
    assert len(daemon.names()) == 3


def test_a_taken_name_fails_the_task_where_that_was_asked_for(daemon: Daemon, nginx: Nginx) -> None:
    (daemon.files / "taken").write_text("mine")
    task = daemon.await_state(daemon.add_one(nginx.file("fail/taken", 9).url, "--on-conflict", "fail"), "failed")
    assert task["error"]["code"] == "conflict"
    assert (daemon.files / "taken").read_text() == "mine"
    assert daemon.names() == ["taken"]


def test_a_taken_name_is_replaced_where_that_was_asked_for(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("fail/over", 2000)
    (daemon.files / "over").write_text("mine")
    task = daemon.await_state(daemon.add_one(served.url, "--on-conflict", "overwrite"), "finished")
    assert task["dest"] == str(daemon.files / "over")
    assert (daemon.files / "over").read_bytes() == served.data
    assert daemon.names() == ["over"]


def test_many_tasks_for_one_name_each_get_a_file(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("fail/same.bin", 3000)
    settled = daemon.await_settled(daemon.add(*[served.url] * 40))
    assert {task["state"] for task in settled.values()} == {"finished"}
    dests = {task["dest"] for task in settled.values()}
    assert len(dests) == 40
    assert all(Path(dest).read_bytes() == served.data for dest in dests)
    assert len(daemon.names()) == 40


def test_a_failed_task_leaves_the_others_alone(daemon: Daemon, nginx: Nginx) -> None:
    urls = [nginx.file(f"fail/mixed-{n}", 100).url if n % 2 else f"{nginx.base}/fail/none-{n}" for n in range(20)]
    settled = daemon.await_settled(daemon.add(*urls))
    assert [settled[n + 1]["state"] for n in range(20)] == ["failed", "finished"] * 10


def test_a_file_system_that_is_detached_meanwhile_fails_the_task(daemon: Daemon, nginx: Nginx, place: Path) -> None:
    """Its file may be complete there, but no path leads to it."""
    served = nginx.file("fail/detached.bin", 2_000_000, rate="400k")
    with mounted(place / "detached", "size=20m") as folder:
        task_id = daemon.add_one(served.slow_url, "-d", str(folder))
        daemon.await_bytes(task_id)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        task = daemon.await_state(task_id, "failed")
        subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)  # for `mounted` to take away
    assert task["error"]["code"] == "folder"


def test_a_folder_that_takes_the_name_in_mid_download_is_not_overwritten_and_said(
    daemon: Daemon, nginx: Nginx, place: Path
) -> None:
    served = nginx.file("fail/taken.bin", 2_000_000, rate="400k")
    folder = place / "taken"
    folder.mkdir()
    task_id = daemon.add_one(served.slow_url, "-d", str(folder), "--on-conflict", "overwrite")
    daemon.await_bytes(task_id)
    (folder / "taken.bin").mkdir()
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] == "conflict"
    assert "is a folder and can't be overwritten" in task["error"]["message"]


def test_a_folder_that_is_removed_at_any_moment_of_a_download_is_made_again(
    daemon: Daemon, nginx: Nginx, place: Path
) -> None:
    served = nginx.file("fail/removed.bin", 4_000_000, rate="800k")
    for moment in ("before the first checkpoint", "after it"):
        folder = place / moment
        task_id = daemon.add_one(served.slow_url, "-d", str(folder))
        daemon.await_bytes(task_id, 100_000)
        if moment == "after it":
            wait_until((folder / ".removed.bin.autodl-ctl").exists, "a checkpoint")
        shutil.rmtree(folder)
        assert daemon.await_state(task_id, "finished")["attempts"] == 2
        assert (folder / "removed.bin").read_bytes() == served.data
