"""What the daemon tells systemd, what it takes from it, and how it writes to the journal."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mailbox import Mailbox

from autodl_lib.contract.errors import BadSettings
from autodl_lib.supervisor.journal import JournalHandler, encode, is_journal
from autodl_lib.supervisor.systemd import STATUS_INTERVAL_S, ServiceManager, StatusLine, adopted_socket

_REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def mailbox(place: Path) -> Iterator[Mailbox]:
    made = Mailbox(place / "mail")
    yield made
    made.close()


@pytest.fixture
def manager(mailbox: Mailbox) -> Iterator[ServiceManager]:
    made = ServiceManager({"NOTIFY_SOCKET": str(mailbox.path)})
    yield made
    made.close()


# Messages.


def test_the_environment_that_children_get_has_nothing_left_to_speak_with(mailbox: Mailbox) -> None:
    environment = {"NOTIFY_SOCKET": str(mailbox.path), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager(environment).close()
    adopted_socket(environment | {"LISTEN_FDS": "1"})
    assert environment == {"HOME": "/"}


def test_ready_and_stopping_are_said_each_once(manager: ServiceManager, mailbox: Mailbox) -> None:
    manager.ready()
    manager.stopping()
    assert mailbox.all() == [b"READY=1", b"STOPPING=1"]


def test_a_reload_is_said_with_its_time_and_its_end(manager: ServiceManager, mailbox: Mailbox) -> None:
    manager.ready()
    with manager.reloading():
        [_, reloading] = mailbox.all()
        assert reloading.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert int(reloading.rpartition(b"=")[2]) > 0
    assert mailbox.all() == [b"READY=1"]


def test_a_reload_that_fails_ends_too(manager: ServiceManager, mailbox: Mailbox) -> None:
    manager.ready()
    with pytest.raises(ValueError, match="wrong"), manager.reloading():
        raise ValueError("wrong")
    assert mailbox.all()[-1] == b"READY=1"


def test_a_reload_before_the_daemon_serves_does_not_say_that_it_does(manager: ServiceManager, mailbox: Mailbox) -> None:
    with manager.reloading():
        pass
    assert mailbox.all() == []


def test_a_reload_while_it_stops_does_not_say_that_it_serves(manager: ServiceManager, mailbox: Mailbox) -> None:
    manager.ready()
    manager.stopping()
    with manager.reloading():
        pass
    assert mailbox.all() == [b"READY=1", b"STOPPING=1"]


def test_a_status_of_two_lines_sends_no_second_assignment(manager: ServiceManager, mailbox: Mailbox) -> None:
    manager.status("1 running\nREADY=1")
    assert mailbox.all() == [b"STATUS=1 running READY=1"]


def test_an_abstract_socket_is_found(mailbox: Mailbox) -> None:
    name = f"autodl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("\0" + name)
        abstract.settimeout(20)
        manager = ServiceManager({"NOTIFY_SOCKET": "@" + name})
        manager.stopping()
        assert abstract.recv(100) == b"STOPPING=1"
        manager.close()


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all"])
def test_without_a_service_manager_nothing_happens(value: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": value})
    manager.ready()
    manager.status("words")
    manager.close()
    manager.stopping()


def test_a_service_manager_that_takes_nothing_makes_nobody_wait(manager: ServiceManager, mailbox: Mailbox) -> None:
    for number in range(5000):
        manager.status(f"{number} running")
    assert 0 < len(mailbox.all()) < 5000


# The watchdog.


def _watched(mailbox: Mailbox, **more: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(mailbox.path), "WATCHDOG_USEC": "20000", **more})


def test_the_watchdog_is_fed_from_ready_on_by_the_loop_itself(mailbox: Mailbox) -> None:
    async def scenario() -> None:
        manager = _watched(mailbox, WATCHDOG_PID=str(os.getpid()))
        assert mailbox.all() == []
        manager.ready()
        beats = 0
        while beats < 3:
            await asyncio.sleep(0.001)
            beats += mailbox.all().count(b"WATCHDOG=1")
        manager.close()

    asyncio.run(scenario())


def test_a_loop_that_hangs_feeds_no_watchdog(mailbox: Mailbox) -> None:
    async def scenario() -> None:
        manager = _watched(mailbox)
        manager.ready()
        mailbox.all()
        with pytest.raises(TimeoutError):  # the loop stands still for ten times the watchdog's time
            mailbox.next(timeout_s=0.2)
        manager.close()

    asyncio.run(scenario())


def test_a_watchdog_of_another_process_is_not_fed(mailbox: Mailbox) -> None:
    async def scenario() -> None:
        manager = _watched(mailbox, WATCHDOG_PID="1")
        manager.ready()
        manager.close()

    asyncio.run(scenario())
    assert mailbox.all() == [b"READY=1"]


# The status.


def test_the_first_change_is_told_at_once_and_those_after_it_together(
    manager: ServiceManager, mailbox: Mailbox
) -> None:
    async def scenario() -> None:
        counts = iter(range(100))
        line = StatusLine(manager, lambda: f"{next(counts)} running")
        began = asyncio.get_running_loop().time()
        said: list[bytes] = []
        while len(said) < 2:
            line.changed()
            await asyncio.sleep(0.005)
            said += mailbox.all()
        assert said == [b"STATUS=0 running", b"STATUS=1 running"]
        assert asyncio.get_running_loop().time() - began >= STATUS_INTERVAL_S
        line.close()

    asyncio.run(scenario())


def test_a_status_that_is_the_same_is_not_said_again(manager: ServiceManager, mailbox: Mailbox) -> None:
    async def scenario() -> None:
        asked = []

        def words() -> str:
            asked.append(1)
            return "0 running"

        line = StatusLine(manager, words)
        while len(asked) < 2:
            line.changed()
            await asyncio.sleep(0.005)
        line.close()

    asyncio.run(scenario())
    assert mailbox.all() == [b"STATUS=0 running"]


# Sockets that systemd has opened.

_ADOPT = """
import os, sys
from autodl_lib.contract.errors import BadSettings
from autodl_lib.supervisor.systemd import adopted_socket, path_of
os.dup2(int(sys.argv[1]), 3)
environment = {"LISTEN_PID": sys.argv[3] or str(os.getpid()), "LISTEN_FDS": sys.argv[2], "LISTEN_FDNAMES": "the name"}
try:
    adopted = adopted_socket(environment)
except BadSettings as error:
    print(error)
else:
    print(adopted and (path_of(adopted), adopted.fileno(), os.get_inheritable(3), adopted.getblocking()))
print(environment)
"""


def _adopt(descriptor: int, count: str = "1", pid: str = "") -> list[str]:
    """Have a process of its own adopt descriptor 3; return what it says, and what is left of its environment."""
    done = subprocess.run(
        [sys.executable, "-c", _ADOPT, str(descriptor), count, pid],
        pass_fds=[descriptor],
        capture_output=True,
        text=True,
        cwd=_REPO,
        check=True,
    )
    said, left = done.stdout.splitlines()
    assert left == "{}"
    return [said]


def _unix(path: Path | str, kind: int = socket.SOCK_STREAM, *, listen: bool = True) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    if listen:
        made.listen()
    return made


def test_a_listening_unix_socket_is_adopted_and_children_do_not_get_it(place: Path) -> None:
    with _unix(place / "s") as given:
        assert _adopt(given.fileno()) == [f"('{place}/s', 3, False, False)"]


@pytest.mark.parametrize(("count", "pid"), [("1", "1"), ("0", ""), ("", ""), ("-1", "")])
def test_sockets_of_another_process_or_none_are_left_alone(count: str, pid: str, place: Path) -> None:
    with _unix(place / "s") as given:
        assert _adopt(given.fileno(), count, pid) == ["None"]


def test_more_than_one_socket_is_refused(place: Path) -> None:
    with _unix(place / "s") as given:
        [said] = _adopt(given.fileno(), "2")
    assert "2 sockets (the name)" in said


def test_a_file_is_refused(place: Path) -> None:
    with (place / "f").open("w") as file:
        [said] = _adopt(file.fileno())
    assert "is no socket" in said


def test_a_socket_of_another_kind_is_refused(place: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        _unix(place / "d", socket.SOCK_DGRAM, listen=False) as datagram,
        _unix(place / "q", listen=False) as not_listening,
    ):
        for given in (tcp, datagram, not_listening):
            assert "no Unix stream socket that listens" in _adopt(given.fileno())[0]


def test_a_socket_without_a_path_is_refused() -> None:
    with _unix(f"\0autodl-test-{os.getpid()}") as given:
        assert "has no path" in _adopt(given.fileno())[0]


def test_a_refusal_is_one_of_the_settings() -> None:
    with pytest.raises(BadSettings):
        adopted_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9"})


# The journal.


def _entry(data: bytes) -> dict[str, str]:
    """Decode an entry as journald does. Source: systemd.io, Native Journal Protocol."""
    found: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if is_short:
            data = rest
        else:
            [size] = struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + size], rest[9 + size :]
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(mailbox: Mailbox) -> Iterator[logging.Logger]:
    """A logger that writes to a journal."""
    handler = JournalHandler(str(mailbox.path))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_an_entry_has_its_priority_event_task_and_user(journal: logging.Logger, mailbox: Mailbox) -> None:
    extra = {"event": "task_failed", "task_id": 17, "uid": 0, "reason": "404", "nothing": None}
    journal.warning("task %d failed", 17, extra=extra)
    entry = _entry(mailbox.next())
    assert entry["MESSAGE"] == "task 17 failed"
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "autodl"
    assert (entry["EVENT"], entry["TASK_ID"]) == ("task_failed", "17")
    assert (entry["AUTODL_UID"], entry["AUTODL_USER"], entry["AUTODL_REASON"]) == ("0", "root", "404")
    assert entry["CODE_FILE"] == __file__
    assert "AUTODL_NOTHING" not in entry


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_each_level_has_its_priority(journal: logging.Logger, mailbox: Mailbox, level: str, priority: int) -> None:
    getattr(journal, level)("words")
    assert _entry(mailbox.next())["PRIORITY"] == str(priority)


def test_a_user_without_an_account_is_named_by_number(journal: logging.Logger, mailbox: Mailbox) -> None:
    for _ in range(2):  # looked up, then remembered
        journal.info("words", extra={"uid": 4_000_000_000})
        assert _entry(mailbox.next())["AUTODL_USER"] == "4000000000"


def test_words_of_a_server_can_not_make_up_fields(journal: logging.Logger, mailbox: Mailbox) -> None:
    journal.info("it said %s", "a\nPRIORITY=0\nTASK_ID=1\n")
    entry = _entry(mailbox.next())
    assert entry["MESSAGE"] == "it said a\nPRIORITY=0\nTASK_ID=1\n"
    assert entry["PRIORITY"] == "6"
    assert "TASK_ID" not in entry


def test_a_defect_goes_with_its_traceback(journal: logging.Logger, mailbox: Mailbox) -> None:
    try:
        raise ValueError("the reason")
    except ValueError:
        journal.exception("internal error")
    message = _entry(mailbox.next())["MESSAGE"]
    assert message.startswith("internal error\nTraceback")
    assert message.endswith("ValueError: the reason")


def test_words_that_are_too_long_or_no_text_are_cut_and_still_sent(journal: logging.Logger, mailbox: Mailbox) -> None:
    journal.info("x" * 10_000_000)
    assert 10_000 < len(_entry(mailbox.next())["MESSAGE"]) < 100_000
    journal.info("a\udcffb")
    assert _entry(mailbox.next())["MESSAGE"] == "a?b"


def test_a_journal_that_takes_nothing_makes_nobody_wait_and_hears_how_much_it_missed(
    journal: logging.Logger, mailbox: Mailbox
) -> None:
    for number in range(2000):
        journal.info("line %d", number)
    taken = len(mailbox.all())
    assert 0 < taken < 2000
    journal.info("again")
    assert _entry(mailbox.next())["AUTODL_LOST_LINES"] == str(2000 - taken)
    journal.info("and again")
    assert "AUTODL_LOST_LINES" not in _entry(mailbox.next())


def test_without_a_journal_lines_go_to_standard_error_with_their_priority(place: Path) -> None:
    reader, stderr = socket.socketpair()
    with reader, stderr:
        handler = JournalHandler(str(place / "nowhere"), stderr.fileno())
        logger = logging.Logger("test")
        logger.addHandler(handler)
        logger.error("two\nlines")
        assert reader.recv(1000) == b"<3>two\n<3>lines\n"
        stderr.setblocking(True)
        for _ in range(20_000):
            logger.error("nobody reads this, and nobody waits for that")
        handler.close()


def test_an_entry_without_line_feeds_is_plain_text() -> None:
    assert encode({"MESSAGE": "words", "PRIORITY": "6"}) == b"MESSAGE=words\nPRIORITY=6\n"


def test_standard_error_is_the_journal_where_its_inode_says_so() -> None:
    with socket.socket() as stream:
        found = os.fstat(stream.fileno())
        here = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(stream.fileno(), here)
        assert not is_journal(0, here)
        assert not is_journal(stream.fileno(), {})
        assert not is_journal(stream.fileno(), {"JOURNAL_STREAM": "nonsense"})
        assert not is_journal(987_654, here)
