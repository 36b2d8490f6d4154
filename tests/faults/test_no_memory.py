"""No memory is left: who asks is told so, what was acknowledged is kept, and when there is some again all goes on."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx
from support.queues import new_task, open_store
from support.rpc import Refused

from autodl_lib.contract.errors import StoreUnusable
from autodl_lib.supervisor.daemon import _explain

MakeFaulty = Callable[..., FaultyDaemon]

MIB = 1024 * 1024


def test_a_daemon_that_may_have_no_more_memory_refuses_what_needs_some_and_goes_on(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty()
    daemon.revive()
    one = nginx.file("memory/slow.bin", 300_000, rate="150k")
    served = dict(zip(daemon.queue([one.slow_url]), [one], strict=True))
    daemon.wait_for(next(iter(served)), lambda task: task["bytes_done"] > 0, "bytes come")
    supervisor = psutil.Process(daemon.pid)
    before = supervisor.rlimit(psutil.RLIMIT_AS)
    acknowledged: list[int] = []
    refused: set[str] = set()
    for more_bytes in (4 * MIB, MIB, 0):
        supervisor.rlimit(psutil.RLIMIT_AS, (supervisor.memory_info().vms + more_bytes, before[1]))
        for number in (1, 1000, 9000, 2):
            urls = [f"http://127.0.0.1:1/{'x' * 300}"] * number
            try:
                with daemon.connect() as wire:
                    acknowledged += wire.call("add", urls=urls, dir=str(daemon.files), paused=True)["ids"]
            except Refused as refusal:
                refused.add(refusal.code)
            except ConnectionError:
                refused.add("busy")  # it was said while the request was still being sent
    supervisor.rlimit(psutil.RLIMIT_AS, before)
    assert refused
    assert refused <= {"busy", "store_unusable"}
    check_files(daemon, daemon.settle(served), served)
    assert {task["id"] for task in daemon.tasks()} >= {*acknowledged, *served}
    assert "there is no memory left for" in daemon.log()
    assert daemon.deaths == 0


def test_a_connection_that_finds_no_memory_is_closed_with_a_sentence_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_explain)
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            transport.max_size = 2**62  # type: ignore[attr-defined]  # so much it takes from the socket at once
            theirs.send(b"x")
            theirs.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(theirs, 1)

    asyncio.run(run())
    assert caplog.messages == ["there is no memory left for a client, whose connection is closed"]
    assert caplog.records[0].exc_info is None


class Forgetful:
    """A connection that has no memory for one statement, once."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        if statement == self._statement:
            self._statement = ""
            raise MemoryError
        return self._connection.execute(statement, *arguments)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT", "SAVEPOINT job", "RELEASE job"])
def test_a_commit_without_memory_is_refused_and_the_next_one_succeeds(tmp_path: Path, statement: str) -> None:
    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            writer = store._writer
            writer._connection = Forgetful(writer._connection, statement)  # type: ignore[assignment]
            with pytest.raises(StoreUnusable, match="no memory is left"):
                await store.write(lambda transaction: transaction.insert([new_task()]))
            await store.write(lambda transaction: transaction.insert([new_task()]))
            assert store.counters.pending() == 1

    asyncio.run(run())


def test_a_change_that_needs_too_much_memory_is_refused_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def greedy(transaction: object) -> None:
        raise MemoryError

    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            with pytest.raises(StoreUnusable, match="no memory is left"):
                await store.write(greedy)
            await store.write(lambda transaction: transaction.insert([new_task()]))
            assert store.counters.pending() == 1

    asyncio.run(run())
