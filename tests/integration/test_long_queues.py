"""Thousands of tasks at once: what concerns all of them reaches each, and nothing that came later."""

from __future__ import annotations

from support.daemon import Daemon
from support.rpc import request

MANY = 4500
URLS = [f"http://127.0.0.1:1/{number}" for number in range(MANY)]


def test_clear_of_thousands_drops_those_that_were_there_when_it_was_asked(daemon: Daemon) -> None:
    with daemon.connect() as wire:
        wire.call("pause")
        wire.call("add", urls=URLS, dir="/tmp")
        wire.send(request(101, "clear") + request(102, "add", urls=URLS[:1], dir="/tmp"))
        answers = {answer["id"]: answer["result"] for answer in (wire.reply(), wire.reply())}
        assert answers[101] == {"cleared": MANY}
        tasks = wire.call("stats")["tasks"]
        assert (tasks["cleared"], tasks["enqueued"]) == (MANY, 1)
        assert wire.call("status", id=answers[102]["ids"][0])["state"] == "enqueued"
        assert wire.call("clear") == {"cleared": 1}


def test_a_follower_hears_of_each_of_thousands_that_are_cleared(daemon: Daemon) -> None:
    with daemon.connect() as wire, daemon.connect() as following:
        wire.call("pause")
        ids = wire.call("add", urls=URLS, dir="/tmp")["ids"]
        following.call("watch")
        following.notifications.clear()
        wire.call("clear")
        left = set(ids)
        for task in following.tasks():
            if task["state"] == "cleared":
                left.discard(task["id"])
            if not left:
                break


def test_thousands_are_cancelled_all_or_none(daemon: Daemon) -> None:
    with daemon.connect() as wire:
        wire.call("pause")
        ids = wire.call("add", urls=URLS, dir="/tmp")["ids"]
        wire.ask("cancel", ids=[*ids, 10**9])
        assert wire.reply()["error"]["data"]["code"] == "no_such_task"
        assert wire.call("stats")["tasks"]["enqueued"] == MANY
        assert wire.call("cancel", ids=ids) == {"ids": ids}
        assert wire.call("stats")["tasks"]["cancelled"] == MANY
        assert [event["event"] for event in wire.call("log", id=ids[-1])["events"]] == ["add", "cancel"]
