"""The log of what was done: a line for each file, none that anybody could forge, and not more than the log can take."""

from __future__ import annotations

import logging

import pytest

from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_messages import Finished
from autodl_lib.supervisor import audit
from autodl_lib.supervisor.audit import LINES_BURST, AuditLog

ALICE, BOB = Uid(1000), Uid(1001)


def finished(dest: str = "/tmp/f", sha256: str | None = None) -> Finished:
    return Finished(lease="1", dest=dest, size_bytes=3, sha256=sha256)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_a_file_s_line_has_what_an_administrator_looks_for(lines: pytest.LogCaptureFixture) -> None:
    AuditLog().finished(ALICE, 7, finished(sha256="0" * 64))
    [record] = lines.records
    assert record.getMessage() == "task 7 is finished: /tmp/f, 3 bytes, sha256 " + "0" * 64
    fields = ("event", "task_id", "uid", "dest", "size_bytes", "sha256", "suppressed")
    assert [getattr(record, name) for name in fields] == ["task_finished", 7, ALICE, "/tmp/f", 3, "0" * 64, None]


@pytest.mark.parametrize(("name", "shown"), [("/tmp/a\nb", "/tmp/a?b"), ("/tmp/\x1b[1m", "/tmp/?[1m"), ("/ä", "/ä")])
def test_a_name_breaks_no_line(name: str, shown: str, lines: pytest.LogCaptureFixture) -> None:
    AuditLog().finished(ALICE, 7, finished(name))
    assert lines.messages == [f"task 7 is finished: {shown}, 3 bytes"]
    assert lines.records[0].__dict__["dest"] == name, "the journal counts the bytes of its fields"


def test_who_has_thousands_of_files_is_logged_in_part_and_counted(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(audit.time, "monotonic", lambda: now)
    log = AuditLog()
    for task_id in range(1000):
        log.finished(ALICE, task_id, finished())
    assert len(lines.records) == LINES_BURST
    log.finished(BOB, 1, finished())
    assert lines.records[-1].__dict__["uid"] == BOB, "others' lines are their own"
    now += 0.051
    log.finished(ALICE, 1000, finished())
    assert lines.records[-1].__dict__["suppressed"] == 1000 - LINES_BURST
    log.finished(ALICE, 1001, finished())
    assert len(lines.records) == LINES_BURST + 2


def test_users_without_number_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_MAX_USERS", 10)
    log = AuditLog()
    for uid in range(25):
        log.finished(Uid(uid), 1, finished())
        assert len(log._budgets) <= 10
