"""`autodl daemon`: from a command line to a running daemon, with every refusal a sentence.

Runs as: root (or the private daemon's user).  Talks to: the configuration file, the state folder, the socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from autodl_lib.contract.errors import AutodlError, BadSettings
from autodl_lib.supervisor.daemon import STOP_TIMEOUT_S, Daemon, Setup
from autodl_lib.supervisor.listener import bind_socket, remove_socket
from autodl_lib.supervisor.options import SYSTEM_CONFIG, SYSTEM_SOCKET, SYSTEM_STATE_DIR, DaemonOptions
from autodl_lib.supervisor.processes import forget_children, raise_file_limit
from autodl_lib.supervisor.settings_file import read_settings
from autodl_lib.supervisor.state_dir import claim_state_dir

PRIVATE_IDLE_EXIT_S = 900.0


def run(options: DaemonOptions) -> int:
    """Run a daemon until it is asked to stop; return the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        _run(options)
    except AutodlError as error:
        print(f"autodl: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: DaemonOptions) -> None:
    if (options.socket is None or options.state_dir is None) and os.geteuid() != 0:
        raise BadSettings("a daemon that is not root needs --socket and --state-dir")
    socket_path = Path(options.socket or SYSTEM_SOCKET).absolute()
    state_dir = Path(options.state_dir or SYSTEM_STATE_DIR).absolute()
    config = Path(options.config).absolute() if options.config else _default_config(options)
    settings = read_settings(config, required=options.config is not None)
    lock = claim_state_dir(state_dir, socket_path, wait_s=STOP_TIMEOUT_S + 2 if options.private else 0)
    listening = bind_socket(socket_path, for_everybody=os.geteuid() == 0 and not options.private)
    raise_file_limit()
    try:
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
            idle_exit_s=options.idle_exit_s or (PRIVATE_IDLE_EXIT_S if options.private else None),
        )
        asyncio.run(_serve(setup, say_ready=options.private))
    finally:
        forget_children()
        remove_socket(socket_path)
        listening.close()
        os.close(lock)


async def _serve(setup: Setup, *, say_ready: bool) -> None:
    await Daemon(setup).run(say_ready)


def _default_config(options: DaemonOptions) -> Path:
    if os.geteuid() == 0 and not options.private:
        return Path(SYSTEM_CONFIG)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "autodl" / "autodl.toml"
