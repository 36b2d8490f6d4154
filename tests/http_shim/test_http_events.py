"""GET /events: tasks as they change, as server-sent events."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

from support.daemon import Daemon, MakeDaemon
from support.http_front import HttpFront, MakeFront
from support.nginx import Nginx
from support.waiting import PATIENCE_S, wait_until

Event = tuple[str, Any]


@contextlib.contextmanager
def following(front: HttpFront, path: str = "/events") -> Iterator[Iterator[Event]]:
    """Follow a stream of events."""
    client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_S)
    with contextlib.closing(client):
        client.request("GET", path, headers=front.bearer)
        response = client.getresponse()
        assert (response.status, response.getheader("Content-Type")) == (200, "text/event-stream")
        yield events(response)


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Yield name and data of each event."""
    fields: dict[str, str] = {}
    for line in response:
        text = line.decode("ascii").rstrip("\n")
        if text.startswith(":"):
            continue
        if not text:
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])
            fields = {}
        else:
            name, _, value = text.partition(": ")
            fields[name] = value


def test_a_download_can_be_followed_to_its_end(front: HttpFront, shared: Daemon, nginx: Nginx) -> None:
    served = nginx.file("followed", 100_000)
    with following(front) as stream:
        first = next(stream)
        while first[0] == "task":
            first = next(stream)
        assert first[0] == "watching"
        [task_id] = front.rpc("add", urls=[served.url]).json["result"]["ids"]
        states = []
        for name, task in stream:
            assert name == "task"
            if task["id"] == task_id:
                states.append(task["state"])
                if task["state"] == "finished":
                    break
    assert states[-1] == "finished"
    assert front.get(f"/tasks/{task_id}").json == task


def test_one_task_is_followed_with_the_parameters_of_watch(front: HttpFront) -> None:
    ids = front.rpc("add", urls=["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"], paused=True).json["result"]["ids"]
    with following(front, f"/events?ids={ids[0]}&progress=false") as stream:
        assert [(name, data.get("id")) for name, data in (next(stream), next(stream))] == [
            ("task", ids[0]),
            ("watching", None),
        ]
        front.rpc("cancel", ids=ids)
        name, task = next(stream)
        assert (name, task["id"], task["state"]) == ("task", ids[0], "cancelled")


def test_a_name_can_not_make_up_an_event(front: HttpFront) -> None:
    label = "x\u2028event: task\u2029data: {}"
    url = "http://127.0.0.1:1/a%0a%0aevent:%20task"
    [task_id] = front.rpc("add", urls=[url], paused=True, label="x y").json["result"]["ids"]
    assert label
    with following(front, f"/events?ids={task_id}") as stream:
        assert [next(stream)[0], next(stream)[0]] == ["task", "watching"]
    front.rpc("cancel", ids=[task_id])


def test_who_leaves_is_not_followed_for_and_too_many_are_refused(
    make_daemon: MakeDaemon, make_front: MakeFront
) -> None:
    front = make_front(make_daemon().start()).start()
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            next(stack.enter_context(following(front)))
        reply = front.get("/events")
        assert (reply.status, reply.code) == (503, "busy")
        assert front.get("/stats").status == 200
    wait_until(lambda: front.ask("HEAD", "/events").status == 200, "it answers")

    def is_free() -> bool:
        with front.connect() as client:
            client.sendall(front.head("GET /events HTTP/1.1"))
            return client.recv(12) == b"HTTP/1.1 200"

    wait_until(is_free, "a place is free again")


def test_a_stream_ends_with_the_daemon_and_begins_again_with_the_next(
    make_daemon: MakeDaemon, make_front: MakeFront
) -> None:
    daemon = make_daemon().start()
    front = make_front(daemon).start()
    [task_id] = front.rpc("add", urls=["http://127.0.0.1:1/a"], paused=True).json["result"]["ids"]
    with following(front) as stream:
        assert [next(stream)[0], next(stream)[0]] == ["task", "watching"]
        daemon.kill()
        rest = list(stream)
    assert [name for name, _ in rest] == ["error"]
    assert rest[0][1]["code"] == "no_daemon"
    daemon.start()
    with following(front) as stream:
        name, task = next(stream)
        assert (name, task["id"]) == ("task", task_id)
