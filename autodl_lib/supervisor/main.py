"""`autodl daemon`: from a command line to a running daemon, with every refusal a sentence.

Runs as: root (or the private daemon's user).
Talks to: the configuration file, the state folder, the socket, systemd where that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from autodl_lib.contract.errors import AutodlError, BadSettings
from autodl_lib.contract.spare_memory import give_back_memory
from autodl_lib.supervisor.clients.listener import bind_socket, give_socket, identity_of_socket, remove_socket
from autodl_lib.supervisor.daemon import STOP_TIMEOUT_S, Daemon, Setup
from autodl_lib.supervisor.environment import forget_the_rest
from autodl_lib.supervisor.journal import JournalHandler, is_journal
from autodl_lib.supervisor.options import SYSTEM_CONFIG, SYSTEM_SOCKET, SYSTEM_STATE_DIR, DaemonOptions
from autodl_lib.supervisor.precedence import take_precedence
from autodl_lib.supervisor.settings_file import read_settings
from autodl_lib.supervisor.state_dir import claim_state_dir
from autodl_lib.supervisor.systemd import ServiceManager, adopted_socket, path_of
from autodl_lib.supervisor.workers.orphans import await_children
from autodl_lib.supervisor.workers.processes import forget_children, raise_file_limit, waited_for

PRIVATE_IDLE_EXIT_S = 900.0
_STDERR_FD = 2
_FAREWELL_S = 1.0
_SWITCH_INTERVAL_S = 0.0005
_COLLECT_AFTER = (1000, 10, 100)
"""There are hardly any cycles to find, and with many tasks known, looking through all takes a tenth of a second."""
_OF_THE_UNIT = "the socket is systemd's: SocketMode= and SocketGroup= of its unit count, not those of [access]"

logger = logging.getLogger(__name__)


def run(options: DaemonOptions) -> int:
    """Run a daemon until it is asked to stop; return the exit status."""
    to_journal = _begin_log()
    try:
        _run(options)
    except AutodlError as error:
        if to_journal:
            logger.error("%s", error, extra={"event": "start_failed"})
        else:
            print(f"autodl: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _begin_log() -> bool:
    """Log with fields where standard error is the journal, as text otherwise; return whether it is the journal."""
    to_journal = is_journal(_STDERR_FD, os.environ)
    if to_journal:
        logging.basicConfig(handlers=[JournalHandler()], level=logging.INFO, format="%(message)s")
    else:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if sys.stderr is not None:
        # The watchdog ends a loop that hangs with SIGABRT: where it hung is worth knowing.
        faulthandler.enable()
    return to_journal


def _run(options: DaemonOptions) -> None:
    if (options.socket is None or options.state_dir is None) and os.geteuid() != 0:
        raise BadSettings("a daemon that is not root needs --socket and --state-dir")
    manager = ServiceManager(os.environ)
    adopted = adopted_socket(os.environ)
    socket_path = _socket_path(options, adopted)
    state_dir = Path(options.state_dir or SYSTEM_STATE_DIR).absolute()
    config = Path(options.config).absolute() if options.config else _default_config(options)
    settings = read_settings(config, required=options.config is not None)
    if os.geteuid() == 0 and not options.private:
        forget_the_rest(os.environ)
    lock = claim_state_dir(state_dir, socket_path, wait_s=STOP_TIMEOUT_S + 2 if options.private else 0)
    listening = adopted or bind_socket(socket_path, for_everybody=os.geteuid() == 0 and not options.private)
    socket_identity = identity_of_socket(socket_path)
    raise_file_limit()
    # The loop waits for the database's thread no longer than this, each time that it comes back from the kernel.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    give_back_memory()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    take_precedence()
    try:
        if adopted is None:
            give_socket(socket_path, settings.access)
        elif settings.access.socket_mode or settings.access.socket_group:
            logger.warning("%s", _OF_THE_UNIT, extra={"event": "socket_adopted"})
        for stale in state_dir.glob("reports-*.sock"):
            stale.unlink(missing_ok=True)
        os.chdir(state_dir)  # the report queue's socket is named relative to it: its path is short then
        setup = Setup(
            state_dir=state_dir,
            config=config,
            config_required=options.config is not None,
            settings=settings,
            max_tasks_num=options.max_tasks_num,
            listening=listening,
            manager=manager,
            idle_exit_s=options.idle_exit_s or (PRIVATE_IDLE_EXIT_S if options.private else None),
        )
        asyncio.run(_serve(setup, say_ready=options.private))
    finally:
        _leave_nothing_behind()
        if adopted is None:
            remove_socket(socket_path, socket_identity)
        listening.close()
        manager.close()
        os.close(lock)


async def _serve(setup: Setup, *, say_ready: bool) -> None:
    await Daemon(setup).run(say_ready)


def _leave_nothing_behind() -> None:
    """End the processes that would end a moment after us: systemd would count them as left behind."""
    for pid in waited_for():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    forget_children()
    await_children(_FAREWELL_S)


def _socket_path(options: DaemonOptions, adopted: socket.socket | None) -> Path:
    """Return where the daemon is found: a socket that systemd has opened wins over the command line."""
    given = Path(options.socket or SYSTEM_SOCKET).absolute()
    if adopted is None:
        return given
    path = Path(path_of(adopted))
    if options.socket is not None and path != given:
        logger.warning("the socket is %s, of systemd's unit, not %s", path, given, extra={"event": "socket_adopted"})
    return path


def _default_config(options: DaemonOptions) -> Path:
    if os.geteuid() == 0 and not options.private:
        return Path(SYSTEM_CONFIG)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "autodl" / "autodl.toml"
