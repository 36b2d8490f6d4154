"""Files synced together: each is told of as by an fsync of its own, whatever the kernel makes of the others."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import wait_until

from autodl_lib.worker import group_sync
from autodl_lib.worker.group_sync import AT_ONCE, AioQueue, GroupSync
from autodl_lib.worker.sync_thread import SyncJob, SyncThread


@contextlib.contextmanager
def opened(folder: Path, count: int) -> Iterator[list[int]]:
    """Yield descriptors of files with bytes that no disk has."""
    fds = []
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(b"x" * 5000)
        fds.append(os.open(path, os.O_RDWR))
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def told(fsync: Callable[[int], None], fds: list[int]) -> list[int]:
    """Return what is said of each file: 0, or the number of the error."""
    codes = []
    for fd in fds:
        try:
            fsync(fd)
        except OSError as error:
            codes.append(error.errno or -1)
        else:
            codes.append(0)
    return codes


def group_of(queue: AioQueue) -> GroupSync:
    group = GroupSync()
    group._queue, group._was_tried = queue, True
    return group


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the files that fsync itself is called for."""
    called: list[int] = []
    really_sync = os.fsync

    def note(fd: int) -> None:
        called.append(fd)
        really_sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    return called


@pytest.mark.parametrize("count", [2, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_any_number_of_files_is_synced_without_an_fsync_each(tmp_path: Path, no_fsync: list[int], count: int) -> None:
    with opened(tmp_path, count) as fds:
        assert told(GroupSync().synced(fds), fds) == [0] * count
    assert no_fsync == []


def test_a_file_alone_is_synced_by_fsync(tmp_path: Path, no_fsync: list[int]) -> None:
    with opened(tmp_path, 1) as fds:
        assert told(GroupSync().synced(fds), fds) == [0]
        assert no_fsync == fds


def test_what_cannot_be_synced_is_told_of_that_file_alone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with opened(tmp_path, 4) as fds:
        mixed = [fds[0], writing, fds[1], 10**6, fds[2], fds[3], reading]
        try:
            codes = told(GroupSync().synced(mixed), mixed)
        finally:
            os.close(reading)
            os.close(writing)
    assert codes == [0, errno.EINVAL, 0, errno.EBADF, 0, 0, errno.EINVAL]


def test_a_disk_that_fails_for_one_file_fails_it_alone(tmp_path: Path) -> None:
    with opened(tmp_path, 3) as fds:
        queue = AioQueue.open()
        assert queue is not None
        really_call = queue._call

        def call(number: object, *arguments: object) -> int:
            result = really_call(number, *arguments)
            for event in queue._events:
                if event.data == 1:
                    event.result = -errno.EIO
            return result

        queue._call = call
        group = group_of(queue)
        assert told(group.synced(fds), fds) == [0, errno.EIO, 0]


def test_what_is_told_of_files_is_not_kept_for_the_next_ones(tmp_path: Path) -> None:
    group = GroupSync()
    with opened(tmp_path, 2) as fds:
        assert told(group.synced([10**6, *fds]), [10**6, *fds]) == [errno.EBADF, 0, 0]
        assert told(group.synced(fds), fds) == [0, 0]


@pytest.mark.parametrize("machine", ["x86_64", "an abacus"])
def test_without_asynchronous_io_each_file_is_synced_by_fsync(
    tmp_path: Path, no_fsync: list[int], monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setitem(group_sync._NUMBERS, "x86_64", (2**20, 2**20, 2**20))  # what no kernel knows
    with opened(tmp_path, 3) as fds:
        assert told(GroupSync().synced(fds), fds) == [0, 0, 0]
        assert no_fsync == fds


class Filtered(AioQueue):
    """A queue that may not ask for results from some time on; the first time it asks is when it is opened."""

    forbidden_from = 2
    waits = 0

    def _wait(self, count: int) -> int:
        self.waits += 1
        if self.waits >= self.forbidden_from:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return super()._wait(count)


def test_where_results_are_never_given_each_file_is_synced_by_fsync(
    tmp_path: Path, no_fsync: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a filter of system calls that knows io_setup and io_submit alone."""
    setup, submit, _ = group_sync._NUMBERS[platform.machine()]
    monkeypatch.setitem(group_sync._NUMBERS, platform.machine(), (setup, submit, 2**20))
    with opened(tmp_path, AT_ONCE + 2) as fds:
        assert told(GroupSync().synced(fds), fds) == [0] * len(fds)
        assert no_fsync == fds


def test_where_results_are_given_no_more_each_file_is_synced_by_fsync_then_and_later(
    tmp_path: Path, no_fsync: list[int]
) -> None:
    queue = Filtered.open()
    assert queue is not None
    group = group_of(queue)
    with opened(tmp_path, 2 * AT_ONCE) as fds:
        first, second = fds[: AT_ONCE + 3], fds[AT_ONCE + 3 :]
        assert told(group.synced(first), first) == [0] * len(first)
        assert no_fsync == first
        # What the kernel has of the first ones is nothing that is said of the second ones.
        assert told(group.synced([10**6, *second]), [10**6, *second]) == [errno.EBADF, *[0] * len(second)]
        assert no_fsync == [*first, 10**6, *second]


def test_what_was_told_before_results_were_given_no_more_is_not_forgotten(tmp_path: Path, no_fsync: list[int]) -> None:
    """A second sync of a file says nothing of an error that the first one told."""

    class OneFails(Filtered):
        forbidden_from = 3

        def _wait(self, count: int) -> int:
            super()._wait(count)
            if not count:
                return 0
            [event] = [event for event in self._events[:count] if event.data == 1]
            self._events[0].data, self._events[0].result = event.data, -errno.EIO
            return 1

    queue = OneFails.open()
    assert queue is not None
    group = group_of(queue)
    with opened(tmp_path, 3) as fds:
        assert told(group.synced(fds), fds) == [0, errno.EIO, 0]
        assert no_fsync == [fds[0], fds[2]]


def test_a_filter_that_forbids_it_later_costs_speed_only(tmp_path: Path) -> None:
    """As when the submission is a system call that nobody knows."""
    script = (
        "import os, sys\n"
        "from autodl_lib.worker.group_sync import AioQueue\n"
        "queue = AioQueue.open()\n"
        "queue._submit = 2**20\n"
        "fds = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]\n"
        "outcomes = {}\n"
        "queue.sync(fds, outcomes)\n"
        "print(outcomes == dict.fromkeys(fds))\n"
    )
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_bytes(b"x")
    run = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"


def test_jobs_come_back_from_the_sync_thread_whatever_befalls_the_syncing_together(
    tmp_path: Path, no_fsync: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_none() -> None:
        raise MemoryError

    monkeypatch.setattr(AioQueue, "open", open_none)
    thread = SyncThread()
    errors: list[OSError | None] = []
    with opened(tmp_path, 3) as fds:
        for fd in fds:
            thread.hold(SyncJob(run=lambda fsync, fd=fd: fsync(fd), done=errors.append, fd=fd))
        thread.release(0.0, at_once=True)
        wait_until(lambda: thread.collect() or not thread.is_busy(), "the jobs come back")
        assert (errors, no_fsync) == ([None] * 3, fds)
    thread.stop()
