"""What a process needed to load and needs no more, given back to the machine.

Runs as: whoever stays for long.  Talks to: the C library.
Source: malloc_trim(3). Where the C library has no such function, it keeps what it has.
"""

from __future__ import annotations

import ctypes
import gc

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back_memory() -> None:
    """Collect what is left over from loading, and take it from the process."""
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)
