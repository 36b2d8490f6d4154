"""status, list, log, history, stats, explain, watch: questions that change nothing.

Runs as: the supervisor.  Talks to: the store's reader, the pool's live figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.replies.queue import Statistics
from autodl_lib.contract.replies.records import EventPage, Explanation, HistoryEntry, TaskLog
from autodl_lib.contract.replies.tasks import Saved, TaskPage, Watching
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.requests.one_task import Explain, Log, Status
from autodl_lib.contract.requests.overviews import History, List, Stats
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.contract.urls import public_url
from autodl_lib.store.listing import Selection
from autodl_lib.supervisor.clients.watchers import Subscription
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.handlers.explaining import reason_of

_FIRST_PICTURE = 1000
_PIECE = 200
"""Tasks that are read in one go, some milliseconds."""

_MOST_STEPS = 50
"""So often a page is added to: one that is not full by then is sent as it is."""

_MOST_USERS = 100
_MAX_PAGE_LENGTH = 2 * 1024 * 1024
"""A page ends where its URLs and folders are so long together: who does not read it holds that much of our memory."""


async def status(call: Call, request: Status) -> Task:
    """Show one task."""
    return shown(call, call.visible(TaskId(request.id)))


async def list_tasks(call: Call, request: List) -> TaskPage:
    """Show a page of tasks."""
    service = call.service
    selection = _selection(call, request)
    page: list[Task] = []
    length = 0
    following: int | None = request.after
    for step in range(_MOST_STEPS):
        if step:
            await call.pace.next()
        piece = service.store.read.page(selection, following or 0, min(_PIECE, request.limit - len(page)))
        page += [shown(call, service.with_live_figures(task)) for task in piece.tasks]
        length += sum(len(task.url) + len(task.dir) for task in piece.tasks)
        following = piece.next
        if following is None or len(page) >= request.limit or length >= _MAX_PAGE_LENGTH:
            break
    return TaskPage(tasks=tuple(page), next=following)


def _host_of(given: str) -> str:
    """Return a host as tasks have it: lower case, and of IPv6 without the brackets that a URL needs.

    Raises: InvalidParams.
    """
    host = given.lower()
    if host.startswith("["):
        host = host[1:].replace("]", "", 1)
    if not host or (host.startswith(":") and not host.startswith("::")):
        raise InvalidParams("host is empty: name one, such as example.org or example.org:8080")
    return host


def _selection(call: Call, request: List) -> Selection:
    selection = Selection(
        users=None,
        states=request.states,
        host=_host_of(request.host) if request.host is not None else None,
        label=request.label,
        since=request.since,
        newest_first=request.reverse,
    )
    uid = call.scope(request.all)
    if uid is not None:
        return replace(selection, users=(uid,))
    if selection.is_all:
        return selection
    # Each user's tasks are found by an index: where there are many users, one walk along all tasks is shorter.
    users = call.service.store.counters.users_with(request.states or TaskState)
    return replace(selection, users=tuple(users)) if len(users) <= _MOST_USERS else selection


async def log(call: Call, request: Log) -> TaskLog:
    """Show a task's history."""
    task = call.visible(TaskId(request.id))
    return TaskLog(events=call.service.store.read.log(task.id))


async def stats(call: Call, request: Stats) -> Statistics:
    """Count tasks, answers and bytes."""
    uid = call.scope(request.all)
    service = call.service
    responses = service.store.read.responses(uid)
    leases = [(service.pool.leases.of_task(task_id), live) for task_id, live in service.pool.leases.live.items()]
    speed = sum(live.speed_bps for lease, live in leases if lease is not None and uid in (None, lease.uid))
    held, until = service.runner.holds.held(call.caller.uid)
    return Statistics(
        tasks={state.value: count for state, count in service.store.counters.of(uid).items()},
        responses={**responses, "total": sum(responses.values())},
        bytes=service.store.read.traffic(uid),
        speed_bps=speed,
        max_tasks_num=service.runner.max_tasks_num,
        held=held,
        held_until=until,
    )


async def watch(call: Call, request: Watch) -> Watching:
    """Show tasks as they are, then whenever they change."""
    service = call.service
    uid = call.scope(request.all) if request.ids is None else None

    def is_shown(state: TaskState) -> bool:
        return state in SETTLED or not request.ends

    def tell(ids: Sequence[TaskId]) -> None:
        saved = service.store.read.saved_files(ids) if request.brief else {}
        if saved:
            call.send_saved(Saved(ids=tuple(saved), dests=tuple(saved.values())))
        if len(saved) < len(ids):
            changed = service.views([task_id for task_id in ids if task_id not in saved])
            call.send_tasks([shown(call, task) for task in changed if is_shown(task.state)])

    subscription = Subscription(
        owner=call.caller.uid,
        ids=None if request.ids is None else {TaskId(task_id) for task_id in request.ids},
        uid=uid,
        progress=request.progress and not request.ends,
        ends=request.ends,
        tell=tell,
        writable=call.writable,
    )
    call.subscribe(subscription)  # before the first look, so that what happens after it is noted
    try:
        states = await _first_states(call, request, uid)
    except BaseException:  # whatever it is: of tasks that may be somebody else's nothing is told
        call.unsubscribe(subscription)
        raise
    try:
        first = [task_id for task_id, state in states.items() if is_shown(state)]
        for start in range(0, len(first), _PIECE):
            if start:
                await call.pace.next()
            tell(first[start : start + _PIECE])
    finally:
        service.watchers.release(subscription)
    return Watching(tasks=len(states), settled=sum(1 for state in states.values() if state in SETTLED))


async def _first_states(call: Call, request: Watch, uid: Uid | None) -> dict[TaskId, TaskState]:
    """Return the tasks to begin with, and their states.

    Those that move come first; of a long queue, its head: a follower counts the rest by `stats`.

    Raises: NoSuchTask.
    """
    if request.ids is not None:
        return await call.visible_states(request.ids)
    first = await _first_numbers(call, uid, (TaskState.DOWNLOADING, TaskState.RETRYING))
    first += await _first_numbers(call, uid, (TaskState.ENQUEUED, TaskState.PAUSED))
    states: dict[TaskId, TaskState] = {}
    for start in range(0, len(first), _PIECE):
        await call.pace.next()
        piece = first[start : start + _PIECE]
        known = call.service.store.read.states(piece)
        states.update((task_id, known[task_id]) for task_id in piece if task_id in known)
    return states


async def _first_numbers(call: Call, uid: Uid | None, states: tuple[TaskState, ...]) -> list[TaskId]:
    """Return the lowest numbers of tasks in these states."""
    store = call.service.store
    users = (uid,) if uid is not None else tuple(store.counters.users_with(states))
    numbers: list[TaskId] = []
    after: int | None = 0
    while after is not None and len(numbers) < _FIRST_PICTURE:
        if after:
            await call.pace.next()
        more, after = store.read.numbers(Selection(users=users, states=states), after, _FIRST_PICTURE - len(numbers))
        numbers += more
    return numbers


async def history(call: Call, request: History) -> EventPage:
    """Show who changed what, and how tasks ended."""
    if request.all and request.user is not None:
        raise InvalidParams("the history of one user, or of all: not both at once")
    uid = call.scope(request.all)
    if request.user is not None:
        uid = await call.uid_of(request.user)
    read = call.service.store.read
    entries = read.history(uid, request.since or 0.0, request.limit)
    return EventPage(events=tuple([_entry(call, entry) for entry in entries]))


def _entry(call: Call, entry: HistoryEntry) -> HistoryEntry:
    """Return an entry as the caller may see it."""
    is_mine = entry.url is None or entry.uid == call.caller.uid
    return entry if is_mine else replace(entry, url=public_url(entry.url or ""))


async def explain(call: Call, request: Explain) -> Explanation:
    """Say why a task is not running."""
    task = call.visible(TaskId(request.id))
    return Explanation(id=task.id, reason=reason_of(call, task))


def shown(call: Call, task: Task) -> Task:
    """Return a task as the caller may see it: another user's without the secrets of its URL."""
    if task.uid == call.caller.uid:
        return task
    return replace(task, url=public_url(task.url))
