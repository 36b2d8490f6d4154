"""A defect of ours is a 500 that says nothing, and in the log with all that is known of it."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from support.http_front import rpc_body

from autodl_lib.client.connection import Connection
from autodl_lib.http_shim.application import Application, Policy
from autodl_lib.http_shim.daemon_link import DaemonLink
from autodl_lib.http_shim.folders import Folders
from autodl_lib.http_shim.guard import Guard
from autodl_lib.http_shim.messages import Answer
from autodl_lib.http_shim.routes import Rpc


def broken() -> Connection:
    raise ZeroDivisionError("secret detail")


def test_a_defect_is_answered_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    link = DaemonLink(broken)
    application = Application(Guard(token=b"x"), Policy(folders=Folders(())), link)
    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(application.answer(Rpc(), rpc_body("stats")))
    link.close()
    assert isinstance(answer, Answer)
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["data"] == {"code": "internal"}
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text
