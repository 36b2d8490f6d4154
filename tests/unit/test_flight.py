"""Which small files are under way together, and what is remembered of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from support.assignments import assignment

from autodl_lib.worker.flight import MOST_AT_ONCE, QUICK_S, Flight
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.small_file import SmallFile


class Stub:
    """A small file, as far as a flight looks at it."""

    wants_session = False

    def __init__(self, lease: str) -> None:
        self.assign = assignment("http://h/x", Path("/"), lease=lease, connections=(MOST_AT_ONCE,))
        self.phase = Phase.TRANSFERRING
        self.begun_mono = float("inf")  # however slow this machine is, it comes at once

    @property
    def is_asking(self) -> bool:
        """Whether it uses a connection."""
        return self.phase is Phase.TRANSFERRING


def fly(flight: Flight, *stubs: Stub) -> int:
    """Begin as many of these as there is room for; return how many that are."""
    begun = 0
    for stub in stubs:
        if flight.files and not flight.has_room_for(stub.assign):
            break
        flight.add(cast(SmallFile, stub))
        begun += 1
    return begun


def land(flight: Flight, phase: Phase = Phase.SYNCING) -> None:
    """Let all that are under way come to this phase."""
    for file in flight.files:
        file.phase = phase
    flight.land()


def test_there_is_one_more_after_each_that_came_at_once() -> None:
    flight = Flight()
    stubs = [Stub(f"{number}") for number in range(40)]
    widths = []
    while stubs:
        widths.append(fly(flight, *stubs))
        del stubs[: widths[-1]]
        land(flight)
    assert widths[:4] == [1, 2, 4, 8]
    assert max(widths) == MOST_AT_ONCE


def test_neither_what_came_late_nor_what_was_halted_makes_it_wider() -> None:
    flight = Flight()
    late, halted = Stub("late"), Stub("halted")
    late.begun_mono = time.monotonic() - 2 * QUICK_S
    fly(flight, late)
    land(flight)
    fly(flight, halted)
    land(flight, Phase.ENDED)
    assert fly(flight, Stub("a"), Stub("b")) == 1


def test_what_is_set_back_is_begun_anew_in_its_order_and_alone() -> None:
    flight = Flight()
    fly(flight, Stub("quick"))
    land(flight)
    assert fly(flight, Stub("a"), Stub("b")) == 2
    for file in flight.files:
        file.phase = Phase.WAITING
    _, again = flight.land()
    assert [assign.lease for assign in again] == ["a", "b"]
    assert fly(flight, Stub("a"), Stub("b")) == 1


def test_that_there_were_several_is_remembered_though_the_last_one_was_alone() -> None:
    flight = Flight()
    fly(flight, Stub("quick"))
    assert not flight.was_wide
    land(flight)
    fly(flight, Stub("a"), Stub("b"))
    land(flight)
    fly(flight, Stub("last"))
    assert flight.was_wide
