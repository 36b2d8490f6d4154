"""The first code of a process that the pool starts: connect as root, become the user, then run theirs.

Runs as: root until the drop, then the task's owner (a worker) or an unprivileged account (the manager).
Talks to: the report queue's socket, before the drop, since only the supervisor's user may connect to it.
Invariants: nothing that a network or a user wrote is read before the drop has been proved. What runs
after it is named by a string, so that this package imports no worker code; the forkserver has it loaded.
How it fails: the process exits with EXIT_NO_ACCOUNT or EXIT_DROP, which the pool tells apart.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, wait

from autodl_lib.contract.settings import WorkerSection
from autodl_lib.contract.task import Uid
from autodl_lib.privilege import capabilities
from autodl_lib.privilege.accounts import find_account, find_account_by_name
from autodl_lib.privilege.drop import DropFailed, become, check_own, seal
from autodl_lib.privilege.landlock import MANAGER_DENIED, WORKER_DENIED, ConfinementFailed, confine, confine_writing
from autodl_lib.privilege.limits import apply_limits

EXIT_NO_ACCOUNT = 67
"""The user has no account on this machine any more (EX_NOUSER of sysexits.h)."""

EXIT_DROP = 77
"""The process could not become its user (EX_NOPERM)."""

EXIT_NO_QUEUE = 69
"""The report queue could not be reached (EX_UNAVAILABLE)."""

MANAGER_ACCOUNTS = ("autodl", "nobody")
"""Who the manager of the report queue becomes under root: the first of these that exists."""

WORKER_CODE = "autodl_lib.worker.entry"
"""The module whose `start` runs after the drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStart:
    """What a new worker is told by the supervisor."""

    uid: Uid
    key: str
    queue_address: str
    queue_key: bytes
    queue_ident: str
    limits: WorkerSection
    is_confined: bool
    """Whether it may write to the first folder that it opens, and to no other one."""


def start_worker(start: WorkerStart, orders: Connection) -> None:
    """Run a worker from its first instruction to its exit; does not return."""
    leave_session(join_workers=True)
    apply_limits(start.limits)
    try:
        reports = Client(start.queue_address, family="AF_UNIX", authkey=start.queue_key)
    except Exception:  # noqa: BLE001 - whatever it is that answers there, the pool will see to another
        os._exit(EXIT_NO_QUEUE)
    try:
        _become_owner(start.uid)
        os.chdir("/")
        keep_only(orders.fileno(), reports.fileno())
        confine(WORKER_DENIED)
    except (DropFailed, ConfinementFailed) as error:
        print(f"autodl: worker: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_DROP)
    status = 1
    try:
        code = importlib.import_module(WORKER_CODE)
        status = code.start(orders, reports, start.queue_ident, start.key, _stay_in if start.is_confined else None)
    finally:
        os._exit(status)


def _stay_in(folder_fd: int) -> None:
    """Give up all writing outside of a folder, for good, before the first byte is read from a network."""
    try:
        confine_writing(folder_fd)
    except ConfinementFailed as error:
        print(f"autodl: worker: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_DROP)


def leave_session(*, join_workers: bool) -> None:
    """Leave the supervisor's session and terminal: what runs as a user must not type into root's shell.

    `join_workers`: where the forkserver has done so, stay in its session, the one of all workers
    (supervisor/workers/worker_session.py).
    """
    if join_workers and os.getsid(0) == os.getppid():
        os.setpgid(0, 0)
    else:
        os.setsid()


def drop_manager() -> None:
    """Make the manager's process unprivileged: `autodl` or `nobody` under root, itself otherwise."""
    try:
        if os.geteuid() != 0:
            check_own(Uid(os.geteuid()))
            capabilities.reduce(capabilities.NONE)
            seal()
            confine(MANAGER_DENIED)
            return
        for name in MANAGER_ACCOUNTS:
            account = find_account_by_name(name)
            if account is not None and account.uid != 0:
                become(account)
                confine(MANAGER_DENIED)
                return
        raise DropFailed(f"no account {' or '.join(MANAGER_ACCOUNTS)} on this machine")
    except (DropFailed, ConfinementFailed) as error:
        print(f"autodl: report queue: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_DROP)


def end_with_supervisor() -> int:
    """See to it that this process ends when the supervisor does; return the descriptor that tells, to be kept."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    sentinel = int(supervisor.sentinel)

    def watch() -> None:
        wait([sentinel])
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    return sentinel


def _become_owner(uid: Uid) -> None:
    if os.geteuid() == uid != 0:
        check_own(uid)
        capabilities.reduce(capabilities.NONE)
        seal()
        return
    account = find_account(uid)
    if account is None:
        os._exit(EXIT_NO_ACCOUNT)
    become(account)
    if uid == 0:
        return
    os.umask(0o022)
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=account.home, USER=account.name, LOGNAME=account.name, PATH="/usr/bin:/bin")


def keep_only(*descriptors: int) -> None:
    """Close every descriptor but these; standard input and output become /dev/null, and a terminal is no error log."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if os.isatty(2):
        os.dup2(null, 2)
    kept = sorted(descriptors)
    lowest = 3
    for descriptor in kept:
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    # What came with the fork may have higher numbers than the process itself may use now.
    os.closerange(lowest, max(os.sysconf("SC_OPEN_MAX"), 1 << 16))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
