"""What is not the task's fault is waited out: a full disk and a network that is down use up no attempts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.daemon import MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx

_CLONE_NEWNET = 0x40000000
"""Source: unshare(2). It is for the calling thread alone, and for what that starts."""

ADDRESS = "10.99.0.1"

ONE_TRY = """
[transfer]
min_free_bytes = 0
[retry]
max_attempts = 1
first_delay_s = {first_delay_s}
max_delay_s = {first_delay_s}
"""


def in_a_network_of_its_own(work: Callable[[], None]) -> None:
    """Do something where there is no network but a loopback that is down."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0, ctypes.get_errno()
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


class Anything(BaseHTTPRequestHandler):
    """Answers every request with the same few bytes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def anything_server() -> Iterator[int]:
    """Serve on all addresses that the machine has or will have; give the port."""
    with ThreadingHTTPServer(("0.0.0.0", 0), Anything) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_full_disk_is_waited_out_whatever_the_number_of_attempts(
    make_daemon: MakeDaemon, nginx: Nginx, place: Path
) -> None:
    daemon = make_daemon(config=ONE_TRY.format(first_delay_s=0.1)).start()
    folder = place / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "autodl-test", folder], check=True)
    try:
        task_id = daemon.add_one(nginx.file("waiting/big.bin", 5_000_000).url, "-d", str(folder))
        daemon.await_task(task_id, "tried three times", lambda task: task["attempts"] >= 3)
        daemon.await_state(task_id, "retrying")
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
        daemon.await_task(task_id, "finished", lambda task: task["state"] == "finished")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_space_stays_free_also_where_a_server_does_not_say_how_much_is_to_come(
    make_daemon: MakeDaemon, place: Path
) -> None:
    config = ONE_TRY.format(first_delay_s=3600).replace("min_free_bytes = 0", "min_free_bytes = 16000000")
    daemon = make_daemon(config=config).start()
    folder = place / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "autodl-test", folder], check=True)
    try:
        with MisbehavingServer() as server:
            url = server.serve("/endless", Case(body=bytes(64_000_000), chunked=True, rate_bps=3_000_000))
            task_id = daemon.add_one(url, "-d", str(folder))
            fullest_bytes = 0

            def is_over(task: dict[str, object]) -> bool:
                nonlocal fullest_bytes
                used = os.statvfs(folder)
                fullest_bytes = max(fullest_bytes, (used.f_blocks - used.f_bavail) * used.f_frsize)
                return task["state"] == "retrying"

            task = daemon.await_task(task_id, "waits for space", is_over)
        assert task["error"]["code"] == "disk_full"
        assert 8_000_000 < fullest_bytes < 28_000_000, "it is noticed on the way, and not when the disk is full"
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_as_what_is_waited_for(make_daemon: MakeDaemon, nginx: Nginx, place: Path) -> None:
    daemon = make_daemon(config=ONE_TRY.format(first_delay_s=3600)).start()
    folder = place / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "autodl-test", folder], check=True)
    try:
        task_id = daemon.add_one(nginx.file("waiting/big.bin", 5_000_000).url, "-d", str(folder))
        daemon.await_state(task_id, "retrying")
        assert daemon.ok("explain", str(task_id)).startswith("It waits for space on the disk (")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_network_that_comes_back_starts_what_waited_for_it_at_once(make_daemon: MakeDaemon) -> None:
    def work() -> None:
        with anything_server() as port:
            daemon = make_daemon(config=ONE_TRY.format(first_delay_s=3600)).start()
            task_id = daemon.add_one(f"http://{ADDRESS}:{port}/file")
            task = daemon.await_state(task_id, "retrying")
            assert task["error"]["code"] == "network_down"
            assert daemon.ok("explain", str(task_id)).startswith("It waits for the network, which is down (")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
            daemon.await_task(task_id, "finished", lambda task: task["state"] == "finished")

    in_a_network_of_its_own(work)
