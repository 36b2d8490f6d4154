"""What is asked by HTTP is what the socket answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.accounts import User
from support.daemon import Daemon, MakeDaemon
from support.http_front import HttpFront, MakeFront, rpc_body
from support.nginx import Nginx
from support.rpc import Refused

from autodl_lib.contract.errors import ERRORS
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.http_shim.routes import READS

PARAMS: dict[str, dict[str, Any]] = {
    "add": {"urls": ["http://127.0.0.1:1/x"], "paused": True},
    "status": {"id": 1},
    "log": {"id": 1},
    "explain": {"id": 1},
    "cancel": {"ids": [1]},
    "retry": {"ids": [1]},
    "priority": {"id": 1, "priority": 3},
    "set_url": {"id": 1, "url": "http://127.0.0.1:1/y"},
    "limit": {"rate_bps": 0},
}
"""What a method is asked with, where it needs something."""


def by_socket(daemon: Daemon, user: User, method: str, **params: Any) -> tuple[str, Any]:
    """Ask the daemon itself, as the account that serves HTTP."""
    try:
        return "result", user.call(daemon.socket, method, **params)
    except Refused as error:
        return "error", error.code


def by_http(front: HttpFront, method: str, **params: Any) -> tuple[str, Any]:
    document = front.rpc(method, **params).json
    assert (document["jsonrpc"], document["id"]) == ("2.0", 1)
    return ("result", document["result"]) if "result" in document else ("error", document["error"]["data"]["code"])


def shape(value: Any) -> Any:
    """Keep what two answers to the same request must have in common: all but numbers and times."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shape(item) for item in value]
    return re.sub(r"\d+", "0", value) if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("method", [request.method for request in REQUESTS if request.method != "watch"])
def test_every_method_answers_what_the_socket_answers(shared: Daemon, front: HttpFront, web: User, method: str) -> None:
    params = PARAMS.get(method, {})
    other = by_socket(shared, web, method, **params)
    assert shape(by_http(front, method, **params)) == shape(other)


@pytest.mark.parametrize("method", [request.method for request in REQUESTS if request.method != "watch"])
def test_every_method_answers_so_about_a_task_that_is_there(
    shared: Daemon, front: HttpFront, web: User, method: str
) -> None:
    """Each time about a new one, of which there are two alike."""
    [one, two] = front.rpc("add", urls=["http://127.0.0.1:1/a"] * 2, paused=True).json["result"]["ids"]
    mine = {key: one if key == "id" else [one] for key in PARAMS.get(method, {}) if key in ("id", "ids")}
    yours = {key: two if key == "id" else [two] for key in mine}
    params = PARAMS.get(method, {})
    other = by_socket(shared, web, method, **{**params, **yours})
    assert shape(by_http(front, method, **{**params, **mine})) == shape(other)
    front.rpc("cancel", ids=[one, two])


def test_all_methods_are_asked_about() -> None:
    needing = {request.method for request in REQUESTS if request.method in PARAMS}
    assert needing == set(PARAMS)


def test_watch_is_a_stream_of_its_own(front: HttpFront) -> None:
    reply = front.rpc("watch")
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert "/events" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "parse_error"),
        (b"{", 400, "parse_error"),
        (b"\xff", 400, "parse_error"),
        (b"[" * 100_000, 400, "parse_error"),
        (b"[]", 400, "invalid_request"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"stats"}]', 400, "invalid_request"),
        (b'{"jsonrpc":"2.0","method":"stats"}', 400, "invalid_request"),
        (b'{"jsonrpc":"1.0","id":1,"method":"stats"}', 400, "invalid_request"),
        (rpc_body("nothing"), 404, "unknown_method"),
        (rpc_body("status"), 400, "invalid_params"),
        (rpc_body("status", id=True), 400, "invalid_params"),
        (rpc_body("status", id=1, more=1), 400, "invalid_params"),
        (rpc_body("status", id=1), 404, "no_such_task"),
        (rpc_body("add", urls=["file:///etc/passwd"]), 400, "bad_url"),
        (rpc_body("max_tasks", number=3), 400, "invalid_params"),
        (rpc_body("list", all=True), 403, "not_allowed"),
    ],
)
def test_an_error_is_said_in_the_words_of_the_socket_with_its_status(
    front: HttpFront, body: bytes, status: int, code: str
) -> None:
    reply = front.post(body)
    assert (reply.status, reply.code) == (status, code)
    error = reply.json["error"]
    [declared] = [one for one in ERRORS if one.code == code]
    assert (error["code"], declared.http_status) == (declared.rpc_code, status)


@pytest.mark.parametrize("rpc_id", ["a", "", -5, 2**53, "\u00e9"])
def test_the_answer_has_the_id_of_the_request(front: HttpFront, rpc_id: str | int) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": "stats"}).encode()
    assert front.post(body).json["id"] == rpc_id


@pytest.mark.parametrize(("path", "request_type"), READS, ids=[path for path, _ in READS])
def test_no_question_changes_anything(path: str, request_type: type) -> None:
    assert not request_type.changes  # type: ignore[attr-defined]


def test_questions_are_pleasant_to_ask(front: HttpFront, web: User, shared: Daemon) -> None:
    [one, two] = front.rpc("add", urls=["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"], paused=True, label="x").json[
        "result"
    ]["ids"]
    front.rpc("cancel", ids=[two])
    assert [task["id"] for task in front.get("/tasks?label=x").json["tasks"]] == [one, two]
    assert [task["id"] for task in front.get("/tasks?label=x&reverse=true&limit=1").json["tasks"]] == [two]
    assert [task["id"] for task in front.get("/tasks?states=paused&states=retrying&label=x").json["tasks"]] == [one]
    task = front.get(f"/tasks/{one}").json
    assert task == web.call(shared.socket, "status", id=one)
    assert task["owner"] == web.name
    assert front.get(f"/tasks/{one}/log").json == web.call(shared.socket, "log", id=one)
    assert front.get(f"/tasks/{one}/explain").json == web.call(shared.socket, "explain", id=one)
    assert front.get("/history?limit=2").json == web.call(shared.socket, "history", limit=2)
    assert shape(front.get("/stats").json) == shape(web.call(shared.socket, "stats"))
    front.rpc("cancel", ids=[one])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/tasks/999999", 404, "no_such_task"),
        ("/tasks/0", 400, "invalid_params"),
        ("/tasks?all=true", 403, "not_allowed"),
        ("/tasks?all=maybe", 400, "invalid_params"),
        ("/tasks?limit=0", 400, "invalid_params"),
        ("/tasks?limit=1&limit=2", 400, "invalid_params"),
        ("/tasks?limit=1e3", 400, "invalid_params"),
        ("/tasks?limit=", 400, "invalid_params"),
        ("/tasks?states=lost", 400, "invalid_params"),
        ("/tasks?since=now", 400, "invalid_params"),
        ("/tasks?label=%ff", 400, "invalid_params"),
        ("/tasks?label", 400, "invalid_params"),
        ("/tasks?method=x", 400, "invalid_params"),
        ("/tasks?access=x", 400, "invalid_params"),
        ("/tasks/1?id=2", 400, "invalid_params"),
        ("/events?ids=999999", 404, "no_such_task"),
        ("/events?ids=x", 400, "invalid_params"),
        ("/tasks/", 404, "no_such_path"),
        ("/tasks/x", 404, "no_such_path"),
        ("/tasks/1/", 404, "no_such_path"),
        ("/tasks/%31", 404, "no_such_path"),
        ("/tasks/../rpc", 404, "no_such_path"),
        ("//stats", 404, "no_such_path"),
        ("/", 404, "no_such_path"),
    ],
)
def test_a_question_that_can_not_be_answered_says_why(front: HttpFront, path: str, status: int, code: str) -> None:
    reply = front.get(path)
    assert (reply.status, reply.code) == (status, code)
    assert set(reply.json["error"]) == {"code", "message"}


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/rpc", 405, "POST, OPTIONS"),
        ("PUT", "/rpc", 405, "POST, OPTIONS"),
        ("POST", "/tasks", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", "/tasks/1", 405, "GET, HEAD, OPTIONS"),
        ("TRACE", "/stats", 405, "GET, HEAD, OPTIONS"),
        ("BREW", "/stats", 501, None),
        ("get", "/stats", 501, None),
        ("OPTIONS", "/stats", 204, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/rpc", 204, "POST, OPTIONS"),
        ("OPTIONS", "*", 204, "GET, HEAD, POST, OPTIONS"),
        ("HEAD", "/stats", 200, None),
        ("HEAD", "/events", 200, None),
        ("HEAD", "/tasks/999999", 404, None),
    ],
)
def test_each_method_of_http_has_its_answer(
    front: HttpFront, method: str, path: str, status: int, allowed: str | None
) -> None:
    reply = front.ask(method, path)
    assert (reply.status, reply.headers.get("allow")) == (status, allowed)
    assert method not in ("HEAD", "OPTIONS") or reply.body == b""


def test_the_head_of_the_stream_says_what_it_is(front: HttpFront) -> None:
    assert front.ask("HEAD", "/events").headers["content-type"] == "text/event-stream"


def test_a_task_that_came_by_http_is_downloaded_as_the_account_that_serves_it(
    front: HttpFront, shared: Daemon, web: User, nginx: Nginx
) -> None:
    served = nginx.file("by-http", 300_000)
    reply = front.rpc("add", urls=[served.url])
    assert reply.status == 200
    [task_id] = reply.json["result"]["ids"]
    shared.await_state(task_id, "finished")
    saved = web.home / "autodl-storage" / "by-http"
    assert front.get(f"/tasks/{task_id}").json["dest"] == str(saved)
    assert saved.read_bytes() == served.data
    assert saved.stat().st_uid == web.uid


def test_other_users_tasks_do_not_exist_by_http(front: HttpFront, shared: Daemon) -> None:
    task_id = shared.add_one("http://127.0.0.1:1/roots", "--paused")
    assert front.get(f"/tasks/{task_id}").code == "no_such_task"
    assert front.rpc("cancel", ids=[task_id]).code == "no_such_task"
    shared.ok("cancel", str(task_id))


@pytest.mark.parametrize(
    "params",
    [
        {"dir": "/etc"},
        {"dir": "~"},
        {"dir": "~/autodl-storage-too"},
        {"dir": "~/autodl-storage/../.ssh"},
        {"dir": "~/autodl-storage/link/../within"},
        {"dir": "~root"},
        {"dir": "~/.ssh"},
        {"dir": "//etc"},
        {"dir": "autodl-storage"},
        {"output": "../.bashrc"},
        {"cookie_file": "~/.netrc"},
        {"client_key": "~/.ssh/id_rsa"},
        {"ca_file": "/etc/passwd"},
        {"continue_from": "~/.bashrc"},
    ],
)
def test_a_task_saves_and_reads_nowhere_but_where_http_may(front: HttpFront, params: dict[str, str]) -> None:
    reply = front.rpc("add", urls=["http://127.0.0.1:1/x"], paused=True, label="astray", **params)
    assert reply.code in ("not_allowed", "invalid_params")
    assert front.get("/tasks?label=astray").json["tasks"] == []


def test_a_folder_below_is_open_too(front: HttpFront, web: User) -> None:
    [task_id] = front.rpc("add", urls=["http://127.0.0.1:1/x"], paused=True, dir="~/autodl-storage/./deep//er/").json[
        "result"
    ]["ids"]
    assert front.get(f"/tasks/{task_id}").json["dir"] == f"{web.home}/autodl-storage/deep/er"
    front.rpc("cancel", ids=[task_id])


def test_the_folders_can_be_chosen_and_the_first_is_then_the_default(
    make_daemon: MakeDaemon, make_front: MakeFront
) -> None:
    daemon = make_daemon().start()
    front = make_front(daemon, "--dir", "/srv/one", "--dir", "/srv/two/").start()
    asked = [{}, {"dir": "/srv/two"}, {"dir": "/srv/one/a"}]
    ids = [
        front.rpc("add", urls=["http://127.0.0.1:1/x"], paused=True, **one).json["result"]["ids"][0] for one in asked
    ]
    assert [front.get(f"/tasks/{one}").json["dir"] for one in ids] == ["/srv/one", "/srv/two", "/srv/one/a"]
    assert front.rpc("add", urls=["http://127.0.0.1:1/x"], dir="/srv/three").code == "not_allowed"


def test_read_only_is_for_looking(make_daemon: MakeDaemon, make_front: MakeFront) -> None:
    front = make_front(make_daemon().start(), "--read-only").start()
    assert front.rpc("list").status == front.get("/stats").status == 200
    for request in REQUESTS:
        if request.changes:
            assert front.rpc(request.method, **PARAMS.get(request.method, {})).code == "not_allowed", request.method
