"""Turns: what one user's requests may take of a round, whatever they ask; connections that leave things half done."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from autodl_lib.contract.task import Gid, Uid
from autodl_lib.privilege.peer import Peer
from autodl_lib.supervisor.clients import connection as connections
from autodl_lib.supervisor.clients.access import Caller
from autodl_lib.supervisor.clients.connection import Connection, Owner
from autodl_lib.supervisor.clients.fair_turns import ALONE, HEAVY, LIGHT, LIGHT_PER_ROUND, MAX_UNDER_WAY, FairTurns

ALICE, BOB = Uid(1001), Uid(1002)


def run(work: Callable[[FairTurns], Coroutine[Any, Any, None]], *, alone: bool = False) -> None:
    async def on_loop() -> None:
        turns = FairTurns()
        if not alone:
            assert turns.try_take(ALICE, LIGHT)
            assert turns.try_take(BOB, LIGHT)
            await asyncio.sleep(0)
        await work(turns)

    asyncio.run(on_loop())


def test_a_user_need_not_wait_and_has_so_many_turns_in_a_round() -> None:
    async def work(turns: FairTurns) -> None:
        assert [turns.try_take(ALICE, LIGHT) for _ in range(LIGHT_PER_ROUND + 1)] == [True] * LIGHT_PER_ROUND + [False]
        assert turns.try_take(BOB, LIGHT)
        await asyncio.sleep(0)
        assert turns.try_take(ALICE, HEAVY)
        assert not turns.try_take(ALICE, LIGHT)

    run(work)


def test_who_is_alone_has_more_until_somebody_comes() -> None:
    async def work(turns: FairTurns) -> None:
        most = ALONE * LIGHT_PER_ROUND
        assert [turns.try_take(ALICE, LIGHT) for _ in range(most + 1)] == [True] * most + [False]
        assert turns.try_take(BOB, LIGHT)
        await asyncio.sleep(0)
        assert [turns.try_take(ALICE, LIGHT) for _ in range(LIGHT_PER_ROUND + 1)] == [True] * LIGHT_PER_ROUND + [False]

    run(work, alone=True)


def test_one_who_asks_once_waits_for_one_piece_of_a_user_who_asks_a_hundred_times() -> None:
    async def work(turns: FairTurns) -> None:
        order: list[Uid] = []

        async def ask(uid: Uid) -> None:
            await turns.take(uid, HEAVY)
            order.append(uid)

        flood = [asyncio.ensure_future(ask(ALICE)) for _ in range(100)]
        await asyncio.sleep(0)
        await ask(BOB)
        assert order.index(BOB) <= 2
        await asyncio.gather(*flood)
        assert order.count(ALICE) == 100

    run(work)


def test_so_many_requests_of_a_user_are_under_way_and_what_is_under_way_goes_on() -> None:
    async def work(turns: FairTurns) -> None:
        begun = []
        for number in range(3 * MAX_UNDER_WAY):
            turns.call_to_begin(ALICE, LIGHT, lambda number=number: begun.append(number))  # type: ignore[misc]
        while len(begun) < MAX_UNDER_WAY:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert begun == list(range(MAX_UNDER_WAY))
        await turns.take(ALICE, HEAVY)
        turns.ended(ALICE)
        while len(begun) == MAX_UNDER_WAY:
            await asyncio.sleep(0)
        assert begun[-1] == MAX_UNDER_WAY

    run(work)


def test_who_took_long_sits_out_where_another_asks_and_nowhere_else() -> None:
    async def work(turns: FairTurns) -> None:
        turns.charge(ALICE, 60.0)
        assert turns.try_take(ALICE, LIGHT)
        assert turns.try_take(BOB, LIGHT)
        turns.charge(ALICE, 0.05)
        assert not turns.try_take(ALICE, LIGHT)
        await turns.take(ALICE, LIGHT)

    run(work, alone=True)


class Service:
    def __init__(self) -> None:
        self.turns = FairTurns()


class Dispatcher:
    def __init__(self) -> None:
        self.service = Service()


class OneOwner:
    """What a connection needs of a listener."""

    version = "0"

    def __init__(self) -> None:
        self.dispatcher = Dispatcher()
        self.gone = asyncio.Event()

    async def admit(self, peer: Peer) -> Caller:
        return Caller(uid=peer.uid, name="alice", pid=peer.pid, is_admin=False)

    def closed(self, _: Connection) -> None:
        self.gone.set()

    def hold(self, _: Peer, change_bytes: int) -> bool:
        return False


@pytest.mark.parametrize("sent", [b"", b"\n \n", b'{"jsonrpc": "2.0"'], ids=["nothing", "empty lines", "half a line"])
def test_a_connection_that_never_says_a_whole_line_is_cut(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINE_TIMEOUT_S", 0.05)

    async def work() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        owner = OneOwner()
        peer = Peer(uid=ALICE, gid=Gid(1001), pid=1)
        made = Connection(cast(Owner, owner), peer)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, ours)
        theirs.sendall(sent)
        async with asyncio.timeout(45):
            await owner.gone.wait()
        theirs.close()

    asyncio.run(work())
