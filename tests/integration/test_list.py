"""`autodl list`: only the tasks that are asked for, from either end, however many there are."""

from __future__ import annotations

import json
import time

from support.daemon import Daemon


def listed(daemon: Daemon, *arguments: str) -> list[int]:
    """Return the numbers that `autodl list` shows."""
    return [task["id"] for task in daemon.json("list", *arguments)["tasks"]]


def test_list_shows_the_tasks_of_a_host_a_label_a_time_and_a_state(daemon: Daemon) -> None:
    films = daemon.add("http://127.0.0.1:1/a", "http://127.0.0.1:1/b", "--label", "films", "--paused")
    music = daemon.add("http://127.0.0.1:2/a", "--label", "music", "--paused")
    daemon.autodl("cancel", str(films[0]))
    between = daemon.status(music[0])["created_at"]
    time.sleep(0.01)  # so that the clock shows something else
    late = daemon.add("https://EXAMPLE.org/x", "--paused")
    assert listed(daemon, "--label", "films") == films
    assert listed(daemon, "--label", "films", "--state", "paused") == films[1:]
    assert listed(daemon, "--host", "127.0.0.1") == films + music
    assert listed(daemon, "--host", "127.0.0.1:2") == music
    assert listed(daemon, "--host", "Example.ORG") == late
    assert listed(daemon, "--since", repr(between)) == music + late
    assert listed(daemon, "--since", "2h", "--host", "127.0.0.1:1", "--reverse") == films[::-1]
    assert listed(daemon, "--all", "--label", "music") == music
    assert listed(daemon, "--all", "--host", "127.0.0.1", "--state", "cancelled") == films[:1]
    assert listed(daemon, "--label", "none") == []
    six = daemon.add("http://[::1]:1/a", "http://[::2]/a", "--paused")
    for host in ("[::1]:1", "[::1]", "::1", "::1:1"):
        assert listed(daemon, "--host", host) == six[:1]
    assert listed(daemon, "--host", "[::2]:80") == six[1:]
    for empty in ("", ":80", "[]"):
        refused = daemon.autodl("list", "--host", empty)
        assert (refused.returncode, "host is empty" in refused.stderr) == (2, True)
    assert "no tasks that fit" in daemon.autodl("list", "--label", "none").stderr
    assert daemon.status(films[0])["label"] == "films"
    assert "films" in daemon.ok("status", str(films[0]))


def test_list_shows_the_newest_first_over_several_pages(daemon: Daemon) -> None:
    lines = "".join(f"http://127.0.0.1:1/{number}\n" for number in range(1200))
    ids = json.loads(daemon.ok("add", "-i", "-", "--paused", "--json", stdin=lines))["ids"]
    assert listed(daemon, "--reverse") == ids[::-1]
    assert listed(daemon, "--reverse", "-n", "3") == ids[:-4:-1]
    assert listed(daemon, "-n", "3") == ids[:3]


def test_a_label_is_a_word(daemon: Daemon) -> None:
    for wrong in ("", "  ", "a\x07b"):
        refused = daemon.autodl("add", "http://127.0.0.1:1/a", "--label", wrong)
        assert refused.returncode != 0
        assert "label" in refused.stderr


def test_watch_of_everything_begins_with_what_waits(daemon: Daemon) -> None:
    ids = daemon.add(*[f"http://127.0.0.1:1/{number}" for number in range(30)], "--paused")
    with daemon.connect() as wire:
        watching = wire.call("watch", all=True)
        assert watching == {"tasks": 30, "settled": 0}
        assert [task["id"] for task in wire.notifications] == ids
