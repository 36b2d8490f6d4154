"""The machine's network: what the kernel says of it is heard, once for changes that come together."""

from __future__ import annotations

import asyncio
import ctypes
import struct
import subprocess
import threading

import pytest

from autodl_lib.supervisor.network_watch import NetworkWatch, says_something_came

_CLONE_NEWNET = 0x40000000
"""Source: unshare(2). It is for the calling thread alone."""


def message(kind: int, body: bytes = b"12345") -> bytes:
    padded = body + b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + padded


@pytest.mark.parametrize("kind", [16, 20, 24])
def test_a_new_link_address_or_route_is_a_change(kind: int) -> None:
    assert says_something_came(message(kind))
    assert says_something_came(message(17) + message(kind))


def test_what_goes_away_or_makes_no_sense_is_none() -> None:
    for data in (b"", b"x", message(17), message(25), struct.pack("=IHHII", 3, 1, 0, 0, 0) * 3, b"\0" * 64):
        assert not says_something_came(data)


def test_links_that_come_up_are_told_once() -> None:
    """In a network namespace of its own: this machine's network stays as it is."""

    async def listen() -> None:
        changed = asyncio.Event()
        calls: list[None] = []

        def told() -> None:
            calls.append(None)
            changed.set()

        watch = NetworkWatch(told, debounce_s=0.5)
        watch.start()
        try:
            for command in ("link set lo up", "addr add 10.99.0.1/32 dev lo"):
                subprocess.run(["ip", *command.split()], check=True)
            async with asyncio.timeout(45):
                await changed.wait()
            assert len(calls) == 1
        finally:
            watch.close()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0, ctypes.get_errno()
            asyncio.run(listen())
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
