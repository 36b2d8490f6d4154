"""The machine's clock is set back by days while a daemon works for several users: nobody waits for it to come again."""

from __future__ import annotations

from pathlib import Path

from support.accounts import accounts
from support.daemon import QUICK
from support.faulty import FaultyDaemon
from support.nginx import Nginx

AHEAD_S = 10 * 86400.0


def test_a_clock_that_is_set_back_breaks_nothing_and_keeps_nobody_waiting(place: Path, nginx: Nginx) -> None:
    served = nginx.file("clock/slow.bin", 2_000_000)
    config = QUICK.replace("[retry]", "[retry]\nmax_attempts = 0") + "\n[limits]\nbytes_per_day = 100000000\n"
    daemon = FaultyDaemon(place, config=config)
    daemon.faults.set_clock(AHEAD_S)
    with accounts("alice", "bob") as users:
        alice, bob = users["alice"], users["bob"]
        try:
            daemon.start()
            [slow] = alice.call(daemon.socket, "add", urls=[served.slow_url])["ids"]
            [failing] = bob.call(daemon.socket, "add", urls=["http://127.0.0.1:1/x"])["ids"]
            daemon.await_bytes(slow)
            before = daemon.await_task(failing, "tried", lambda task: task["state"] == "retrying")
            daemon.faults.set_clock(0)
            # When it is due is ten days away by the clock of now.
            daemon.await_task(failing, "tried again", lambda task: task["attempts"] > before["attempts"] + 1)
            done = daemon.await_state(slow, "finished")
            assert Path(done["dest"]).read_bytes() == served.data
            assert done["finished_at"] < done["created_at"]
            [later] = bob.call(daemon.socket, "add", urls=[served.url])["ids"]
            assert later > failing
            daemon.await_state(later, "finished")
            assert [event["event"] for event in alice.call(daemon.socket, "log", id=slow)["events"]][-1] == "finish"
            assert daemon.stop() == 0
        finally:
            assert daemon.end_all() == []
    assert daemon.defects() == []
