"""The entry point, thin because worker processes may import it again as root: `autodl` and `python autodl.py`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from autodl_lib.client.connection import Connection
    from autodl_lib.contract.http_options import HttpOptions


def main() -> int:
    """Run the command line with this process's arguments; returns after a daemon only, else the process ends here."""
    _end_at_ctrl_c()
    import gc
    import sys

    # While modules are loaded nothing becomes garbage, and to look for it takes a tenth of what a small command does.
    gc.disable()
    from autodl_lib.cli.main import leave, run

    status = run(
        sys.argv[1:], entry=__file__, run_daemon=_run_daemon, run_http=_run_http, loaded=_raise_again_at_ctrl_c
    )
    return status if "autodl_lib.supervisor.main" in sys.modules else leave(status)


def _end_at_ctrl_c() -> None:
    """Let Ctrl-C end the process without a word while there is nothing to tidy up, and nobody to catch an exception.

    One that is raised while a module is loaded may also end in a callback of the importer's, which prints and drops it.
    """
    # What `signal` is made of: that itself takes a millisecond to load, which each command would take longer.
    import _signal  # type: ignore[import-not-found]

    # Where it is ignored (nohup, a background job of a script) it stays so.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _interrupted)


def _raise_again_at_ctrl_c() -> None:
    """Let Ctrl-C be KeyboardInterrupt: a command begins."""
    import _signal

    if _signal.getsignal(_signal.SIGINT) is _interrupted:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _interrupted(*_: object) -> None:
    import os

    os._exit(130)


def _run_daemon(
    *,
    max_tasks_num: int | None,
    socket: str | None,
    state_dir: str | None,
    config: str | None,
    private: bool,
    idle_exit_s: float | None,
) -> int:
    # The command line may not import the supervisor; this module, which is in neither layer, joins them.
    from autodl_lib.supervisor import no_network  # noqa: F401  (before all else)
    from autodl_lib.supervisor.main import run
    from autodl_lib.supervisor.options import DaemonOptions

    options = DaemonOptions(
        max_tasks_num=max_tasks_num,
        socket=socket,
        state_dir=state_dir,
        config=config,
        private=private,
        idle_exit_s=idle_exit_s,
    )
    return run(options)


def _run_http(options: HttpOptions, open_daemon: Callable[[], Connection]) -> int:
    # The command line may not import what serves HTTP either.
    from autodl_lib.http_shim.main import run

    return run(options, open_daemon)


if __name__ == "__main__":
    raise SystemExit(main())
