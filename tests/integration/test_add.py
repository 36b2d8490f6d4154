"""`autodl add`: the real command line, the real daemon, a real server."""

from __future__ import annotations

import hashlib
import subprocess

from support.daemon import AUTODL, Daemon
from support.nginx import Nginx


def test_an_added_file_arrives_whole(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("add/whole.bin", 300_000)
    task_id = daemon.add_one(served.url)
    task = daemon.await_state(task_id, "finished")
    dest = daemon.files / "whole.bin"
    assert task["dest"] == str(dest)
    assert hashlib.sha256(dest.read_bytes()).hexdigest() == served.sha256
    assert daemon.names() == ["whole.bin"]


def test_each_url_is_a_task_and_its_id_a_line(daemon: Daemon, nginx: Nginx) -> None:
    urls = [nginx.file(f"add/line-{number}", 10).url for number in range(3)]
    printed = daemon.ok("add", *urls, str(daemon.files))
    assert printed == "1\n2\n3\n"
    daemon.await_settled([1, 2, 3])
    assert daemon.names() == ["line-0", "line-1", "line-2"]


def test_without_a_folder_it_is_saved_to_autodl_storage_in_the_home_folder(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("add/default.bin", 1000)
    [task_id] = daemon.json("add", served.url)["ids"]
    task = daemon.await_state(task_id, "finished")
    assert task["dest"] == str(daemon.home / "autodl-storage" / "default.bin")
    assert (daemon.home / "autodl-storage" / "default.bin").read_bytes() == served.data


def test_the_last_argument_is_the_folder_and_may_be_relative(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("add/dir.bin", 1000)
    daemon.ok("add", served.url, "some/where", cwd=daemon.files)
    task = daemon.await_state(1, "finished")
    assert task["dest"] == str(daemon.files / "some" / "where" / "dir.bin")


def test_output_names_the_file(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("add/remote-name", 1000)
    task_id = daemon.add_one(served.url, "-o", "chosen.txt")
    assert daemon.await_state(task_id, "finished")["dest"] == str(daemon.files / "chosen.txt")


def test_urls_come_from_a_file_too(daemon: Daemon, nginx: Nginx) -> None:
    urls = [nginx.file(f"add/list-{number}", 10).url for number in range(3)]
    lines = f"# a comment\n{urls[0]}\n\n{urls[1]}\n{urls[2]}\n"
    assert daemon.ok("add", "-i", "-", "-d", str(daemon.files), stdin=lines) == "1\n2\n3\n"
    daemon.await_settled([1, 2, 3])
    assert daemon.names() == ["list-0", "list-1", "list-2"]


def test_an_empty_file_is_a_file(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("add/empty", 0).url)
    assert daemon.await_state(task_id, "finished")["bytes_total"] == 0
    assert (daemon.files / "empty").read_bytes() == b""


def test_a_task_that_is_added_paused_waits_for_resume(daemon: Daemon, nginx: Nginx) -> None:
    held, other = nginx.file("add/held", 10), nginx.file("add/other", 10)
    held_id = daemon.add_one(held.url, "--paused")
    daemon.await_state(daemon.add_one(other.url), "finished")
    assert daemon.status(held_id)["state"] == "paused"
    daemon.ok("resume", "--id", str(held_id))
    daemon.await_state(held_id, "finished")


def test_two_hundred_tasks_at_once_all_arrive_whole(daemon: Daemon, nginx: Nginx) -> None:
    served = [nginx.file(f"add/many/{number}.bin", number * 131 + 1) for number in range(200)]
    ids = daemon.add(*(one.url for one in served))
    assert len(set(ids)) == 200
    settled = daemon.await_settled(ids)
    assert {task["state"] for task in settled.values()} == {"finished"}
    for one, task_id in zip(served, ids, strict=True):
        dest = daemon.files / one.name.rpartition("/")[2]
        assert settled[task_id]["dest"] == str(dest)
        assert hashlib.sha256(dest.read_bytes()).hexdigest() == one.sha256
    assert len(daemon.names()) == 200


def test_clients_that_add_at_the_same_time_get_ids_of_their_own(daemon: Daemon, nginx: Nginx) -> None:
    clients = []
    for client in range(4):
        urls = [nginx.file(f"add/client-{client}/{client}-{number}", 50).url for number in range(25)]
        clients.append(
            subprocess.Popen(
                [*AUTODL, "add", *urls, "-d", str(daemon.files)],
                stdout=subprocess.PIPE,
                text=True,
                env=daemon.environment(AUTODL_SOCKET=str(daemon.socket)),
            )
        )
    printed = [client.communicate(timeout=60)[0].split() for client in clients]
    assert [client.returncode for client in clients] == [0] * 4
    ids = [int(word) for words in printed for word in words]
    assert sorted(ids) == list(range(1, 101))
    assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}
    assert len(daemon.names()) == 100


def test_an_id_is_printed_only_after_its_task_is_on_disk(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("add/durable", 1000)
    daemon.ok("pause")
    for number in range(10):
        task_id = daemon.add_one(served.url, "-o", f"durable-{number}")
        daemon.kill()
        daemon.start()
        assert daemon.status(task_id)["state"] == "enqueued"
    daemon.ok("resume")
    daemon.await_settled(range(1, 11))
    assert daemon.names() == sorted(f"durable-{number}" for number in range(10))
