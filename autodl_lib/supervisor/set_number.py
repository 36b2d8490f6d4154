"""How many tasks may run at once: the command line's number, else the one set at run time, else the file's.

Runs as: the supervisor.  Talks to: the store.
A number that was set at run time (`autodl max-tasks N`) outlives the daemon, until the file says another one than it
did then: the latest word counts. A number on the daemon's command line is the latest word of each start.
"""

from __future__ import annotations

from autodl_lib.store.reader import Reader
from autodl_lib.store.transaction import Transaction

_KEY = "max_tasks_num"


def keep_number(transaction: Transaction, number: int, in_file: int) -> None:
    """Keep a number that was set at run time; `in_file` is what the file says meanwhile."""
    transaction.keep_setting(_KEY, f"{number} {in_file}")


def forget_number(transaction: Transaction) -> None:
    """Forget it: the file says another one now."""
    transaction.keep_setting(_KEY, None)


def number_at_start(read: Reader, on_command_line: int | None, in_file: int) -> int:
    """Return the number to begin with."""
    if on_command_line is not None:
        return on_command_line
    kept = (read.setting(_KEY) or "").split()
    if len(kept) == 2 and all(word.isdecimal() for word in kept) and int(kept[1]) == in_file:
        return max(1, int(kept[0]))
    return in_file
