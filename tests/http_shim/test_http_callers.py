"""Who is answered by HTTP: the token, and what keeps web pages out."""

from __future__ import annotations

import stat

import pytest
from support.http_front import HttpFront, rpc_body

PATHS = ("/tasks", "/tasks/1", "/stats", "/history", "/events", "/rpc", "/", "/nothing", "/tasks?all=true")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"])
def test_without_the_token_nothing_is_answered_but_401(front: HttpFront, method: str, path: str) -> None:
    reply = front.ask(method, path, token=False)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.headers["connection"] == "close"
    assert method == "HEAD" or reply.code == "unauthorized"


@pytest.mark.parametrize(
    "wrong",
    [
        "Bearer ",
        "Bearer x",
        "Bearer -",
        "Bearer {short}",
        "Bearer {first}",
        "Bearer {}x",
        "Basic {}",
        "{}",
        "Bearer {}, Bearer {}",
        "Bearer {} {}",
        "Bearer \xff",
    ],
)
def test_a_wrong_token_is_none(front: HttpFront, wrong: str) -> None:
    for word, value in {"{}": front.token, "{short}": front.token[:-1], "{first}": front.token[0]}.items():
        wrong = wrong.replace(word, value)
    reply = front.ask("GET", "/stats", token=False, Authorization=wrong)
    assert reply.status == 401


def test_two_tokens_are_none(front: HttpFront) -> None:
    head = front.head("GET /stats HTTP/1.1", f"Authorization: Bearer {front.token}")
    assert front.raw(head).startswith(b"HTTP/1.1 401 ")


def test_the_token_is_taken_in_any_spelling_of_its_scheme(front: HttpFront) -> None:
    assert front.ask("GET", "/stats", token=False, Authorization=f"bearer  {front.token}").status == 200


def test_a_body_is_not_waited_for_from_who_has_no_token(front: HttpFront) -> None:
    head = front.head("POST /rpc HTTP/1.1", "Content-Length: 4000000", "Content-Type: application/json", token=False)
    with front.connect() as client:
        client.sendall(head)
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_token_is_for_its_owner_alone_and_as_long_as_a_key(front: HttpFront) -> None:
    assert stat.S_IMODE(front.token_file.stat().st_mode) == 0o600
    assert len(front.token) == 43


def test_neither_the_token_nor_what_callers_send_is_in_the_log(front: HttpFront) -> None:
    front.ask("GET", "/secret-path", token=False, Authorization="Bearer secret-guess")
    assert front.token not in front.log()
    assert "secret" not in front.log()
    assert "refused: " in front.log()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:6736"])
def test_the_loopback_is_a_host(front: HttpFront, host: str) -> None:
    assert front.get("/stats", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "0.0.0.0", "", "a b", "[::1"],
)
def test_a_name_that_leads_here_is_no_host(front: HttpFront, host: str) -> None:
    reply = front.get("/stats", Host=host)
    assert (reply.status, reply.code) in {(421, "bad_host"), (400, "bad_http")}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_request_without_a_host_is_refused(front: HttpFront, version: str) -> None:
    data = f"GET /stats HTTP/{version}\r\nAuthorization: Bearer {front.token}\r\n\r\n".encode()
    assert front.raw(data).split(b" ", 2)[1] in (b"400", b"421")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost", "file://", ""])
def test_a_web_page_is_refused_though_it_had_the_token(front: HttpFront, origin: str) -> None:
    for reply in (front.get("/stats", Origin=origin), front.post(rpc_body("stats"), Origin=origin)):
        assert (reply.status, reply.code) == (403, "bad_origin")
        assert not any(name.startswith("access-control") for name in reply.headers)


def test_a_page_that_asks_beforehand_gets_no_leave(front: HttpFront) -> None:
    reply = front.ask(
        "OPTIONS", "/rpc", token=False, Origin="http://evil.example", Access_Control_Request_Method="POST"
    )
    assert reply.status == 401
    assert not any(name.startswith("access-control") for name in reply.headers)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json5", "json"])
def test_a_form_is_no_request(front: HttpFront, kind: str | None) -> None:
    reply = front.post(rpc_body("pause"), Content_Type=kind)
    assert (reply.status, reply.code) == (415, "not_json")
    assert front.get("/stats").json["held"] is False


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", 'application/json;charset="UTF-8"']
)
def test_json_is_json(front: HttpFront, kind: str) -> None:
    assert front.post(rpc_body("stats"), Content_Type=kind).status == 200


def test_no_answer_is_kept_or_guessed_at_by_a_browser(front: HttpFront) -> None:
    for reply in (front.get("/stats"), front.get("/nothing"), front.ask("GET", "/stats", token=False)):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-type"] == "application/json"


def test_a_callback_is_no_parameter(front: HttpFront) -> None:
    assert front.get("/stats?callback=f").code == "invalid_params"
