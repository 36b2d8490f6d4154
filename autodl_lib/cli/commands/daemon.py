"""`autodl daemon`: hands its options to the runner that autodl.py brought along.

Runs as: whoever starts it: root for the machine's daemon, a user for a private one.
"""

from __future__ import annotations

import os

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.options import Seconds, Whole
from autodl_lib.cli.session import Session
from autodl_lib.client.locate import make_private, private_folders
from autodl_lib.contract.fields import param_of
from autodl_lib.contract.settings import Settings

_DESCRIPTION = """Run the daemon in the foreground.

As root it serves all users of the machine and downloads as each of them; otherwise it serves you.

SIGTERM stops it cleanly, downloads go on where they were when it is started again. SIGHUP reads the
configuration again. If not told otherwise, it listens on /run/autodl/autodl.sock and keeps its queue in
/var/lib/autodl as root, and uses the folders of the private daemon otherwise."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    import dataclasses

    [field] = [f for f in dataclasses.fields(Settings) if f.name == "max_tasks_num"]
    bounds = param_of(field)
    number = Whole(int(bounds.minimum), int(bounds.maximum))
    parameters: list[click.Parameter] = [
        click.Argument(["max_tasks_num"], required=False, type=number, metavar="[MAX_TASKS_NUM]"),
        click.Option(["--state-dir"], metavar="DIR", help="where the queue is kept"),
        click.Option(
            ["--config"], metavar="FILE", help="the configuration [default: /etc/autodl/autodl.toml if it is there]"
        ),
        click.Option(["--private"], is_flag=True, hidden=True),
        click.Option(["idle_exit_s", "--idle-exit"], type=Seconds(0), metavar="SECONDS", hidden=True),
    ]
    return {"daemon": make_command("daemon", _DESCRIPTION, parameters, _daemon)}


def _daemon(
    session: Session,
    max_tasks_num: int | None,
    state_dir: str | None,
    config: str | None,
    private: bool,
    idle_exit_s: float | None,
) -> int:
    socket = session.socket or os.environ.get("AUTODL_SOCKET") or None
    if os.geteuid() != 0 and (socket is None or state_dir is None):
        folders = private_folders()
        for folder in (folders.socket_dir, folders.state_dir):
            make_private(folder)
        socket, state_dir = socket or folders.socket, state_dir or folders.state_dir
    return session.run_daemon(
        max_tasks_num=max_tasks_num,
        socket=socket,
        state_dir=state_dir,
        config=config,
        private=private,
        idle_exit_s=idle_exit_s,
    )
