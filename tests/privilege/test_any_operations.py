"""Whatever several users do, in whichever order: the daemon answers what a model says, and nobody sees another's.

A real root daemon, its real socket, real accounts and real transfers; hypothesis chooses who does what.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.nginx import Nginx
from support.queue_model import ABSENT, Denied, Kind, ModelTask, QueueModel
from support.rpc import Refused, Wire
from support.several_users import ACTORS, PLAIN, Stage, open_stage, wire_of
from support.waiting import wait_until

from autodl_lib.contract.states import SETTLED, TaskEvent, TaskState

MOST_S = 40.0
MOST_SLOW = 6
"""Each one takes a process."""

actors = st.sampled_from(ACTORS)
targets = st.integers(0, 40)
several = st.lists(targets, min_size=1, max_size=3)
kinds = st.sampled_from(Kind)
labels = st.sampled_from([None, "one", "two"])
mostly_false = st.sampled_from([False, False, False, True])
filters = st.fixed_dictionaries(
    {
        "states": st.lists(st.sampled_from(TaskState), max_size=3, unique=True),
        "label": labels,
        "host": st.sampled_from([None, "127.0.0.1", "127.0.0.1:1"]),
        "reverse": mostly_false,
    }
)


def step(**choices: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a rule that is carried out while there is time."""

    def declare(act: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(act)
        def carry_out(self: Operations, **chosen: Any) -> None:
            if time.monotonic() < self.rest_at_mono:
                act(self, **chosen)

        return rule(**choices)(carry_out)

    return declare


class Operations(RuleBasedStateMachine):
    """One run."""

    stage: ClassVar[Stage]
    done: ClassVar[Counter[str]] = Counter()
    rest_at_mono: ClassVar[float] = 0.0
    """From then on nothing is done any more: a loaded machine does less."""

    @initialize()
    def begin(self) -> None:
        self.model = QueueModel(frozenset({"admin"}))
        self.ids: list[int] = []
        self.before = {task["id"]: task for task in self.stage.everything()}
        self.number = 0
        self.followers = {name: wire_of(user, self.stage.daemon.socket) for name, user in self.stage.users.items()}
        for name, wire in self.followers.items():
            wire.call("watch", all=name == "admin", progress=False)

    def teardown(self) -> None:
        try:
            for name, wire in self.followers.items():
                self.see_the_end_of(name, wire)
        finally:
            for wire in self.followers.values():
                wire.close()
            self.clean_up()

    def see_the_end_of(self, who: str, follower: Wire) -> None:
        """See that who followed all along was told how each of their tasks is now, and nothing of any other."""
        [last] = self.stage.wires[who].call("add", urls=["http://127.0.0.1:1/last"], paused=True)["ids"]
        told: dict[int, str] = {}
        for task in follower.tasks():
            self.check_private(who, task)
            if task["id"] == last:
                break
            told[task["id"]] = task["state"]
        mine = [task for task in self.model.tasks.values() if who in (task.owner, "admin")]
        assert {number: state for number, state in told.items() if number in self.model.tasks} == {
            task.id: task.state.value for task in mine
        }

    def clean_up(self) -> None:
        stage = self.stage
        for name in ACTORS:
            stage.wires[name].call("resume")
        stage.root.call("resume", all=True)
        for task in stage.everything():
            if task["state"] not in SETTLED:
                with contextlib.suppress(Refused):  # it has just ended by itself
                    stage.root.call("cancel", ids=[task["id"]])

    # --- what is done ---

    @step(who=actors, kind=kinds, paused=mostly_false, count=st.integers(1, 3), label=labels)
    def add(self, who: str, kind: Kind, paused: bool, count: int, label: str | None) -> None:
        if kind is Kind.SLOW and sum(task.kind is Kind.SLOW for task in self.model.tasks.values()) >= MOST_SLOW:
            kind = Kind.WHOLE
        urls = [self.url(who, kind) for _ in range(count)]
        ids = self.stage.wires[who].call("add", urls=urls, paused=paused, label=label)["ids"]
        for task_id, url in zip(ids, urls, strict=True):
            assert task_id not in self.model.tasks
            self.model.add(ModelTask(task_id, who, kind, TaskState.ENQUEUED, url, label=label), paused=paused)
            self.ids.append(task_id)
        self.settle()

    @step(who=actors, which=several, event=st.sampled_from(["pause", "resume", "cancel", "retry"]))
    def move(self, who: str, which: list[int], event: str) -> None:
        ids = self.named(which)
        self.agree(who, event, lambda: self.model.move(who, ids, TaskEvent(event)), ids=ids)
        self.settle()

    @step(who=actors, everybody=mostly_false)
    def hold(self, who: str, everybody: bool) -> None:
        def expected() -> None:
            self.model.scope(who, everybody)
            self.model.held.add(None if everybody else who)

        self.agree(who, "pause", expected, all=everybody)

    @step(who=actors, everybody=mostly_false)
    def lift(self, who: str, everybody: bool) -> None:
        def expected() -> None:
            self.model.scope(who, everybody)
            self.model.held.discard(None if everybody else who)

        self.agree(who, "resume", expected, all=everybody)
        self.settle()

    @step(who=actors, everybody=mostly_false)
    def clear(self, who: str, everybody: bool) -> None:
        dropped: list[int] = []
        result = self.agree(who, "clear", lambda: dropped.append(self.model.clear(who, everybody)), all=everybody)
        if result is not None:
            assert result["cleared"] == dropped[0]
        self.settle()

    @step(who=actors, which=targets, number=st.integers(-5, 5))
    def priority(self, who: str, which: int, number: int) -> None:
        [task_id] = self.named([which])

        def expected() -> None:
            self.model.one(who, task_id).priority = number

        self.agree(who, "priority", expected, id=task_id, priority=number)

    @step(who=actors, which=targets, kind=st.sampled_from([Kind.WHOLE, Kind.MISSING, Kind.REFUSED]))
    def set_url(self, who: str, which: int, kind: Kind) -> None:
        [task_id] = self.named([which])
        url = self.url(who, kind)
        self.agree(who, "set_url", lambda: self.model.set_url(who, task_id, url, kind), id=task_id, url=url)
        self.settle()

    @step(who=actors, which=several, rate=st.sampled_from([0, 50_000, 10**9]))
    def limit(self, who: str, which: list[int], rate: int) -> None:
        ids = self.named(which)
        self.agree(who, "limit", lambda: self.model.set_limit(who, ids, rate), ids=ids, rate_bps=rate)

    @step(who=actors, number=st.none() | st.integers(50, 60))
    def max_tasks(self, who: str, number: int | None) -> None:
        def expected() -> None:
            if number is not None and who != "admin":
                raise Denied("not_allowed")

        self.agree(who, "max_tasks", expected, max_tasks_num=number)

    # --- what is asked ---

    @step(who=actors, everybody=mostly_false, filters=filters)
    def list_tasks(self, who: str, everybody: bool, filters: dict[str, Any]) -> None:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.agree(
                who, "list", lambda: self.model.scope(who, everybody), all=everybody, after=after, limit=5000, **filters
            )
            if page is None:
                return
            found += [task for task in page["tasks"] if task["id"] not in self.before]
            after = page["next"]
        wanted = [task for task in self.model.scope(who, everybody) if is_wanted(task, filters)]
        wanted.sort(key=lambda task: task.id, reverse=filters["reverse"])
        assert [self.seen(who, task) for task in found] == [self.shown(who, task) for task in wanted]

    @step(who=actors, everybody=mostly_false)
    def stats(self, who: str, everybody: bool) -> None:
        found = self.agree(who, "stats", lambda: self.model.scope(who, everybody), all=everybody)
        if found is not None:
            uid = self.stage.users[who].uid
            old = Counter(task["state"] for task in self.before.values() if everybody or task["uid"] == uid)
            new = Counter(task.state.value for task in self.model.scope(who, everybody))
            assert +Counter(found["tasks"]) == old + new
            assert found["held"] == self.model.is_held(who)

    @step(who=actors, which=targets, method=st.sampled_from(["status", "log", "explain"]))
    def look_at(self, who: str, which: int, method: str) -> None:
        [task_id] = self.named([which])
        found = self.agree(who, method, lambda: self.model.one(who, task_id), id=task_id)
        if found is None:
            return
        task = self.model.one(who, task_id)
        match method:
            case "status":
                assert self.seen(who, found) == self.shown(who, task)
            case "log":
                assert found["events"][0]["event"] == "add"
                assert {event["actor"] for event in found["events"]} <= self.known_to(task.owner)
            case "explain":
                assert found["id"] == task_id
                assert self.is_explained(task, found["reason"]), found

    @step(who=actors, which=st.none() | several, everybody=mostly_false)
    def watch(self, who: str, which: list[int] | None, everybody: bool) -> None:
        ids = None if which is None else self.named(which)

        def expected() -> object:
            return self.model.scope(who, everybody) if ids is None else self.model.visible(who, ids)

        with wire_of(self.stage.users[who], self.stage.daemon.socket) as wire:
            self.agree(who, "watch", expected, wire=wire, ids=ids, all=everybody, progress=False)
            pictures = {task["id"]: task for task in wire.notifications if task["id"] not in self.before}
        self.check_private(who, pictures)
        try:
            wanted = self.model.scope(who, everybody) if ids is None else self.model.visible(who, ids)
        except Denied:
            wanted = []
        if ids is None:
            wanted = [task for task in wanted if task.state not in SETTLED]
        assert {number: task["state"] for number, task in pictures.items()} == {
            task.id: task.state.value for task in wanted if ids is not None or task.state is not TaskState.FAILED
        }

    @step(who=actors, everybody=mostly_false)
    def history(self, who: str, everybody: bool) -> None:
        found = self.agree(who, "history", lambda: self.model.scope(who, everybody), all=everybody, limit=200)
        if found is not None and not everybody:
            uid = self.stage.users[who].uid
            assert {event["uid"] for event in found["events"]} <= {uid}

    # --- comparing ---

    def agree(
        self,
        who: str,
        method: str,
        expected: Callable[[], object],
        *,
        wire: Wire | None = None,
        **params: Any,
    ) -> Any:
        """Do the same on the model and on the daemon; return the daemon's answer, None where both refuse."""
        wire = wire or self.stage.wires[who]
        self.done[method] += 1
        code: str | None = None
        refusal: Refused | None = None
        result = None
        try:
            expected()
        except Denied as denied:
            code = str(denied)
        try:
            result = wire.call(method, **params)
        except Refused as refused:
            refusal = refused
        assert (refusal and refusal.code) == code, (who, method, params, refusal, result)
        if refusal is not None:
            self.check_private(who, refusal.message)
            self.check_absence(who, method, params, refusal)
            return None
        self.check_private(who, result)
        return result

    def check_private(self, who: str, answer: object) -> None:
        """See that an answer has nothing of others in it: no name, no folder, no URL, and never a password."""
        text = json.dumps(answer)
        others = set() if who == "admin" else set(PLAIN) - {who}
        for other in others:
            assert self.stage.users[other].name not in text, (who, other, text)
            assert f"token-{other}" not in text, (who, other, text)
        for other in set(ACTORS) - {who}:
            assert f"hunter-{other}" not in text, (who, other, text)

    def check_absence(self, who: str, method: str, params: dict[str, Any], refusal: Refused) -> None:
        """See that another's task is refused in the same words as one that never was."""
        if refusal.code != "no_such_task" or "id" not in params:
            return
        with pytest.raises(Refused) as absent:
            self.stage.wires[who].call(method, **{**params, "id": ABSENT - 1})
        assert absent.value.code == "no_such_task"
        assert absent.value.message.replace(str(ABSENT - 1), "N") == refusal.message.replace(str(params["id"]), "N")

    def settle(self) -> None:
        """Let the model run, and wait until the daemon has come to the same."""
        self.model.run()
        wanted = {task.id: task.state.value for task in self.model.tasks.values()}

        def found() -> dict[int, str]:
            return {task["id"]: task["state"] for task in self.stage.everything() if task["id"] not in self.before}

        wait_until(lambda: found() == wanted, "the daemon agrees with the model", seen=lambda: (found(), wanted))

    def url(self, who: str, kind: Kind) -> str:
        """Return a URL that tells whose it is, with a password."""
        self.number += 1
        plain = self.stage.urls[kind].removeprefix("http://")
        return f"http://{who}:hunter-{who}@{plain}?token-{who}-{self.number}"

    def named(self, which: Sequence[int]) -> list[int]:
        """Return the tasks that some numbers stand for, or one that is not there."""
        known = [*self.ids, ABSENT]
        return [known[index % len(known)] for index in which]

    def known_to(self, owner: str) -> set[str | None]:
        """Return who may be named in the history of a user's task."""
        return {None, self.stage.users[owner].name, self.stage.users["admin"].name}

    def seen(self, who: str, task: dict[str, Any]) -> tuple[object, ...]:
        """Return of an answer what the model knows."""
        return task["id"], task["owner"], task["state"], task["priority"], task["url"]

    def shown(self, who: str, task: ModelTask) -> tuple[object, ...]:
        """Return what an answer should say of a task."""
        hidden = task.owner != who or task.state is TaskState.FINISHED
        url = task.url.replace(f"{task.owner}:hunter-{task.owner}@", "***@") if hidden else task.url
        if task.owner != who:
            url = url.partition("?")[0] + "?***"
        return task.id, self.stage.users[task.owner].name, task.state.value, task.priority, url

    def is_explained(self, task: ModelTask, reason: str) -> bool:
        words = {
            TaskState.ENQUEUED: "on hold",
            TaskState.DOWNLOADING: "is running",
            TaskState.RETRYING: "next try",
            TaskState.PAUSED: "is paused",
            TaskState.FINISHED: "is finished",
            TaskState.FAILED: "failed",
            TaskState.CANCELLED: "was cancelled",
            TaskState.CLEARED: "was cleared",
        }
        return words[task.state] in reason


def is_wanted(task: ModelTask, filters: dict[str, Any]) -> bool:
    if filters["states"] and task.state not in filters["states"]:
        return False
    at_closed_port = "@127.0.0.1:1/" in task.url
    return filters["label"] in (None, task.label) and (filters["host"] != "127.0.0.1:1" or at_closed_port)


@pytest.fixture(scope="module")
def stage(nginx: Nginx) -> Iterator[Stage]:
    with open_stage(nginx) as made:
        yield made


@pytest.mark.timeout(900)
def test_whatever_users_do_the_answers_are_those_of_the_model_and_nobody_sees_another_s(stage: Stage) -> None:
    Operations.stage = stage
    Operations.done.clear()
    Operations.rest_at_mono = time.monotonic() + MOST_S
    run_state_machine_as_test(
        Operations,
        settings=settings(
            max_examples=int(os.environ.get("AUTODL_ANY_RUNS", "60")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if time.monotonic() < Operations.rest_at_mono:
        assert Operations.done.total() > 100
        assert len(Operations.done) > 12, "nearly every method was tried"
    assert Operations.done
