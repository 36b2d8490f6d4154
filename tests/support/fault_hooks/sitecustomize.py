"""Loaded by Python at its start in every process of a daemon under test (PYTHONPATH): its named crash points.

The folder $AUTODL_TEST_FAULTS says what happens. `points` names functions, `module:Class.method` one a line: they are
wrapped when their module is loaded, in supervisor, forkserver, manager and workers. `arms` has two bytes for each,
for before and after it: 0 is not armed; the process that comes to a 1 makes it HIT and kills itself with SIGKILL; from
a higher number it takes one. All processes share that memory, also those that may open nothing any more.
A file `clock` holds seconds by which time.time() is wrong. The product knows nothing of all this.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

FOLDER = os.environ.get("AUTODL_TEST_FAULTS", "")


HIT = 255
_arms: mmap.mmap | None = None
_slots: dict[str, int] = {}


def strike(point: str, after: int) -> None:
    """End this process if the point is armed."""
    assert _arms is not None
    slot = _slots[point] + after
    armed = _arms[slot]
    if armed in (0, HIT):
        return
    _arms[slot] = HIT if armed == 1 else armed - 1
    if armed == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def wrapped(function: Callable[..., Any], point: str) -> Callable[..., Any]:
    """Return a function with the point at its begin and its end."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            strike(point, 0)
            result = await function(*args, **kwargs)
            strike(point, 1)
            return result

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        strike(point, 0)
        result = function(*args, **kwargs)
        strike(point, 1)
        return result

    return call


def wrap(module: ModuleType, name: str) -> None:
    """Put a point around a function of a module; a name that is not there is an error."""
    holder: Any = module
    *way, last = name.split(".")
    for step in way:
        holder = getattr(holder, step)
    found = inspect.getattr_static(holder, last)
    point = f"{module.__name__}:{name}"
    if isinstance(found, staticmethod | classmethod):
        setattr(holder, last, type(found)(wrapped(found.__func__, point)))
    else:
        setattr(holder, last, wrapped(found, point))


class Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, and wraps what is named of it before anybody can import it from there."""

    def __init__(self, inner: importlib.abc.Loader, names: Sequence[str]) -> None:
        self._inner = inner
        self._names = names

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        for name in self._names:
            wrap(module, name)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have points."""

    def __init__(self, points: dict[str, list[str]]) -> None:
        self._points = points

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._points:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader, self._points[fullname])
        return spec


def shift_clock() -> None:
    """Make time.time() as wrong as the file `clock` says."""
    right = time.time

    def wrong() -> float:
        try:
            with open(f"{FOLDER}/clock") as file:
                return right() + float(file.read())
        except (OSError, ValueError):
            return right()

    time.time = wrong


def begin() -> None:
    """Wrap what `points` names."""
    points: dict[str, list[str]] = {}
    with open(f"{FOLDER}/points") as file:
        for number, line in enumerate(file.read().split()):
            module, _, name = line.partition(":")
            points.setdefault(module, []).append(name)
            _slots[line] = 2 * number
    if points:
        global _arms
        with open(f"{FOLDER}/arms", "r+b") as arms:
            _arms = mmap.mmap(arms.fileno(), 0)
        sys.meta_path.insert(0, Finder(points))
    shift_clock()


if FOLDER:
    begin()
