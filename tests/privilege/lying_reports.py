"""Lies in reports: those that break the rules, and those that are meant for the process that hands them on."""

from __future__ import annotations

import os
import pickle
import time
from typing import Any

from autodl_lib.worker.liar import Liar, lie

# --- reports that break the rules ---


@lie
def finished_at_once(liar: Liar) -> None:
    liar.say(liar.finished())


@lie
def finished_unpublished(liar: Liar) -> None:
    liar.say(liar.started(), liar.ready(), liar.finished())


@lie
def forged_sha256(liar: Liar) -> None:
    liar.say(liar.finished(sha256="x" * 63 + "\n"))


@lie
def says_that_its_folder_is_another(liar: Liar) -> None:
    """A next worker would be confined to that one."""
    liar.say(liar.started(dir="/etc/cron.d"))
    os._exit(1)


@lie
def name_in_another_folder(liar: Liar) -> None:
    liar.say(liar.started(name="../.profile"))
    os._exit(1)


@lie
def part_in_another_folder(liar: Liar) -> None:
    liar.say(liar.ready(part="../.NAME.autodl-part"))
    os._exit(1)


@lie
def work_beside_its_reports(liar: Liar) -> None:
    """Each is costly to read, and nothing in it is a report."""
    beside = ",".join(['{"":{}}'] * 5000)
    for _ in range(200):
        liar.put(f'{{"worker":"{liar.key}","reports":[],"x":[{beside}]}}')


@lie
def ready_twice(liar: Liar) -> None:
    liar.say(liar.ready(), liar.ready())


@lie
def progress_before_start(liar: Liar) -> None:
    liar.say(liar.progress())


@lie
def halted_unasked(liar: Liar) -> None:
    liar.say(liar.started(), liar.report("halted", bytes_done=1, bytes_received=1, part=None))


@lie
def current_unasked(liar: Liar) -> None:
    liar.say(liar.report("current", dest="/x", size_bytes=1, http_status=304))


@lie
def discarded_unasked(liar: Liar) -> None:
    liar.say(liar.report("discarded"))


@lie
def yielded_unasked(liar: Liar) -> None:
    liar.say(liar.report("yielded", connections=[0]))


@lie
def returned_though_alone(liar: Liar) -> None:
    """To be given it again, and again."""
    liar.say(liar.report("returned"))


@lie
def retained_unasked(liar: Liar) -> None:
    liar.say(liar.report("retained"))


@lie
def bound_twice(liar: Liar) -> None:
    liar.say({"type": "bound", "lease": liar.key})


@lie
def pong_unasked(liar: Liar) -> None:
    """The first may be asked for by now; the second can't be."""
    liar.say({"type": "pong"}, {"type": "pong"})


@lie
def guessed_lease(liar: Liar) -> None:
    liar.say({**liar.finished(), "lease": "0123456789abcdef"})


@lie
def no_lease(liar: Liar) -> None:
    liar.say({"type": "finished", "dest": "/x", "size_bytes": 1})


@lie
def unknown_kind(liar: Liar) -> None:
    liar.say(liar.report("configure", settings={}))


@lie
def unknown_field(liar: Liar) -> None:
    liar.say(liar.started(uid=0))


@lie
def wrong_type(liar: Liar) -> None:
    liar.say(liar.started(bytes_done="1"))


@lie
def boolean_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_done=True))


@lie
def negative_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_done=-1))


@lie
def number_beyond_all(liar: Liar) -> None:
    liar.say(liar.started(), liar.progress(bytes_done=2**200))


@lie
def inode_beyond_all(liar: Liar) -> None:
    liar.say(liar.ready(identity={"inode": 2**63, "size_bytes": 1, "mtime_ns": 1}))


@lie
def not_a_number(liar: Liar) -> None:
    liar.say(liar.started(bytes_total=float("nan")))


@lie
def long_word(liar: Liar) -> None:
    liar.say(liar.started(name="x" * 60_000))


@lie
def zero_byte(liar: Liar) -> None:
    liar.say(liar.started(name="a\0b"), liar.finished())


@lie
def report_that_is_a_list(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[[[]],null,7]}}')


@lie
def many_notes(liar: Liar) -> None:
    for _ in range(30):
        liar.say(*[liar.report("note", text="x" * 400)] * 30)
    time.sleep(60)


# --- texts that are no reports ---


@lie
def malformed_json(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[')


@lie
def deep_json(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":{"[" * 30_000}')


@lie
def long_digits(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":[{"9" * 60_000}]}}')


@lie
def two_keys(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","worker":"{"0" * 16}","reports":[]}}')


@lie
def no_list(liar: Liar) -> None:
    liar.put(f'{{"worker":"{liar.key}","reports":{{}}}}')


@lie
def other_worker(liar: Liar) -> None:
    for number in range(500):
        liar.say(liar.finished(), key=f"{number:016x}")
    time.sleep(60)


@lie
def nobody_s_text(liar: Liar) -> None:
    for _ in range(500):
        liar.put("x" * 60_000)
    time.sleep(60)


@lie
def progress_flood(liar: Liar) -> None:
    liar.say(liar.started())
    while True:
        liar.say(*[liar.progress()] * 300)


@lie
def garbage_flood(liar: Liar) -> None:
    while True:
        liar.put("x" * 65_000)


# --- the report queue's process ---


@lie
def text_over_the_limit(liar: Liar) -> None:
    assert b"#RETURN" not in liar.put("x" * 65_537)
    time.sleep(60)


@lie
def other_methods(liar: Liar) -> None:
    for request in (
        (liar.ident, "drain", ("", 0.0), {}),
        (liar.ident, "drain", (None, 0.0), {}),
        (liar.ident, "drain", ("é", 0.0), {}),
        (liar.ident, "__init__", ("secret",), {}),
        (liar.ident, "__class__", (), {}),
        (liar.ident, "_texts", (), {}),
        (liar.ident, "#GETVALUE", (), {}),
        (liar.ident, "__str__", (), {}),
        (liar.ident, ["put"], (), {}),
        (None, "shutdown", (), {}),
        (None, "create", ("reports",), {}),
        ("0", "debug_info", (), {}),
        (liar.ident, "put", (["x"],), {}),
        (liar.ident, "put", (), {"text": {"a": 1}}),
    ):
        reply = liar.ask(request)
        if b"#RETURN" in reply:
            liar.tell(returned=repr(request), reply=reply.decode()[:3000])
    liar.tell(returned=None)


@lie
def pickle_on_the_wire(liar: Liar) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {liar.folder}/exploded",)

    liar.reports.send_bytes(pickle.dumps(Bomb()))
    time.sleep(60)


@lie
def entity_bomb(liar: Liar) -> None:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    liar.reports.send_bytes(
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{entities}]>'
        "<methodCall><methodName>&a11;</methodName></methodCall>".encode()
    )
    time.sleep(60)


@lie
def external_entity(liar: Liar) -> None:
    liar.reports.send_bytes(
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/shadow">]><methodCall><params><param><value><array><data>'
        b"<value><string>&e;</string></value></data></array></value></param></params></methodCall>"
    )
    time.sleep(60)


@lie
def no_xml(liar: Liar) -> None:
    liar.reports.send_bytes(os.urandom(100_000))
    time.sleep(60)


@lie
def endless_frame(liar: Liar) -> None:
    os.write(liar.reports.fileno(), b"\xff\xff\xff\xff" + (2**40).to_bytes(8, "big"))
    chunk = b"x" * 65536
    for _ in range(4000):
        os.write(liar.reports.fileno(), chunk)
    time.sleep(60)


@lie
def half_a_frame(liar: Liar) -> None:
    os.write(liar.reports.fileno(), (1000).to_bytes(4, "big") + b"<")
    time.sleep(60)
