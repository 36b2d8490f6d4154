"""The cases of the bench: what is served how, which programs fetch it, and what the issue asks of autodl.

Runs as: the bench.  Talks to: servers, peers, autodl's daemon.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import peers
from ours import Ours
from peers import Program
from servers import MIB, Nginx, Steered, make_file, make_small_files, steered, warm

from autodl_lib.contract.settings import TransferSection

CONNECTIONS = (8, 16)
"""What autodl is run with besides its default."""

_SMALL_BYTES = 10 * 1024
_LIMITED_BYTES = 32 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is served where the command line may say so."""

    large_mib: int
    small_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the issue asks: the median of the program `of` is at most `factor` times the best of `against`.

    A name in `against` stands for all programs whose names begin with it.
    """

    text: str
    of: str
    against: tuple[str, ...]
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A row that is reckoned, not measured."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a case is played: what has its servers, its lists and its daemon."""

    folder: Path
    nginx: Nginx
    ours: Ours
    sizes: Sizes


def nothing() -> None:
    """Reset a server that remembers nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A case that is set up: who runs, what each must save (name and sha256), how the server starts over."""

    title: str
    programs: list[Program]
    expected: dict[str, str]
    size_bytes: int
    many_tasks: bool = False
    reset: Callable[[], None] = nothing
    bounds: list[Bound] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


def _variants(ours: Ours, *arguments: str) -> list[Program]:
    return [ours.program(*arguments), *(ours.program(*arguments, connections=n) for n in CONNECTIONS)]


def _of_each(variants: list[Program], text: str, against: tuple[str, ...], factor: float) -> list[Target]:
    return [Target(text=text, of=variant.name, against=against, factor=factor) for variant in variants]


@contextlib.contextmanager
def large(stage: Stage) -> Iterator[Scene]:
    """One large file from nginx."""
    size_bytes = stage.sizes.large_mib * MIB
    digest = make_file(stage.nginx.files / "large.bin", size_bytes)
    url = stage.nginx.base + "large.bin"
    variants = _variants(stage.ours, url)
    targets = _of_each(variants, "<= 0.75 x curl", ("curl",), 0.75)
    targets += _of_each(variants, "<= 1.2 x floor", ("floor",), 1.2)
    yield Scene(
        title=f"one file of {stage.sizes.large_mib} MiB",
        programs=[*variants, *peers.one_file(url, floor=True)],
        expected={"large.bin": digest},
        size_bytes=size_bytes,
        targets=targets,
    )


@contextlib.contextmanager
def four(stage: Stage) -> Iterator[Scene]:
    """Four large files at once from nginx."""
    each_mib = max(1, stage.sizes.large_mib // 4)
    names = [f"four-{number}.bin" for number in range(4)]
    expected = {name: make_file(stage.nginx.files / name, each_mib * MIB) for name in names}
    urls = [stage.nginx.base + name for name in names]
    url_list, _ = peers.write_lists(urls, stage.folder)
    yield Scene(
        title=f"four files of {each_mib} MiB at once",
        programs=[*_variants(stage.ours, *urls), *peers.large_files_at_once(urls, url_list)],
        expected=expected,
        size_bytes=4 * each_mib * MIB,
    )


@contextlib.contextmanager
def small(stage: Stage) -> Iterator[Scene]:
    """Many small files from nginx."""
    count = stage.sizes.small_files
    expected = make_small_files(stage.nginx.files / "small", count, _SMALL_BYTES)
    warm(stage.nginx.files / "small")
    yield _small_scene(
        stage,
        f"{count} files of 10 KiB",
        f"{stage.nginx.base}small/",
        expected,
        targets=[Target(text="<= 0.25 x aria2c -j16", of="autodl", against=("aria2c",), factor=0.25)],
    )


@contextlib.contextmanager
def limited(stage: Stage) -> Iterator[Scene]:
    """One file from a server that gives each connection the same low rate."""
    with _limited_server(stage, "--rate-bps", str(2 * MIB)) as (server, digest):
        url = server.base + "limited.bin"
        variants = _variants(stage.ours, url)
        bounds = [
            Bound(name=f"{count} connections x 2 MiB/s", seconds=_LIMITED_BYTES / (count * 2 * MIB))
            for count in (TransferSection().connections, *CONNECTIONS)
        ]
        targets = [
            Target(text="within 10% of connections x limit", of=variant.name, against=(bound.name,), factor=1 / 0.9)
            for variant, bound in zip(variants, bounds, strict=True)
        ]
        yield Scene(
            title="32 MiB from a server that limits each connection to 2 MiB/s",
            programs=[*variants, *peers.one_file(url, floor=False)],
            expected={"limited.bin": digest},
            size_bytes=_LIMITED_BYTES,
            reset=server.reset,
            bounds=bounds,
            targets=targets,
        )


@contextlib.contextmanager
def slow(stage: Stage) -> Iterator[Scene]:
    """One file from a server where each fourth connection crawls."""
    rates = ("--rate-bps", str(4 * MIB), "--slow-bps", str(4 * MIB // 20), "--slow-every", "4")
    with _limited_server(stage, *rates) as (server, digest):
        url = server.base + "limited.bin"
        variants = _variants(stage.ours, url)
        targets = _of_each(variants, "<= 0.45 x the best aria2c", ("aria2c",), 0.45)
        targets += _of_each(variants, "<= axel -n8", ("axel",), 1.0)
        yield Scene(
            title="32 MiB at 4 MiB/s a connection, each fourth connection at 0.2 MiB/s",
            programs=[*variants, *peers.one_file(url, floor=False)],
            expected={"limited.bin": digest},
            size_bytes=_LIMITED_BYTES,
            reset=server.reset,
            targets=targets,
        )


@contextlib.contextmanager
def delay(stage: Stage) -> Iterator[Scene]:
    """One file over a way that takes 20 ms in each direction."""
    size_mib = max(1, stage.sizes.large_mib // 4)
    digest = make_file(stage.nginx.files / "delayed.bin", size_mib * MIB)
    with steered("relay.py", str(stage.nginx.port)) as relay:
        url = relay.base + "delayed.bin"
        variants = _variants(stage.ours, url)
        against = ("curl", "aria2c", "wget", "axel")
        yield Scene(
            title=f"one file of {size_mib} MiB, 20 ms away in each direction",
            programs=[*variants, *peers.one_file(url, floor=True)],
            expected={"delayed.bin": digest},
            size_bytes=size_mib * MIB,
            reset=relay.reset,
            targets=_of_each(variants, "<= the best peer", against, 1.0),
        )


@contextlib.contextmanager
def delay_small(stage: Stage) -> Iterator[Scene]:
    """Some small files over a way that takes 20 ms in each direction."""
    count = max(1, stage.sizes.small_files // 50)
    expected = make_small_files(stage.nginx.files / "delayed", count, _SMALL_BYTES)
    with steered("relay.py", str(stage.nginx.port)) as relay:
        title = f"{count} files of 10 KiB, 20 ms away in each direction"
        yield _small_scene(stage, title, f"{relay.base}delayed/", expected, reset=relay.reset)


def _small_scene(
    stage: Stage,
    title: str,
    base: str,
    expected: dict[str, str],
    *,
    reset: Callable[[], None] = nothing,
    targets: list[Target] | None = None,
) -> Scene:
    url_list, curl_config = peers.write_lists([base + name for name in expected], stage.folder)
    return Scene(
        title=title,
        programs=[stage.ours.program("-i", str(url_list)), *peers.small_files(url_list, curl_config)],
        expected=expected,
        size_bytes=len(expected) * _SMALL_BYTES,
        many_tasks=True,
        reset=reset,
        targets=targets or [],
    )


@contextlib.contextmanager
def _limited_server(stage: Stage, *rates: str) -> Iterator[tuple[Steered, str]]:
    file = stage.folder / "served.bin"
    digest = make_file(file, _LIMITED_BYTES)
    with steered("limited_server.py", str(file), *rates) as server:
        yield server, digest


Case = Callable[[Stage], contextlib.AbstractContextManager[Scene]]

CASES: dict[str, Case] = {
    "large": large,
    "four": four,
    "small": small,
    "limited": limited,
    "slow": slow,
    "delay": delay,
    "delay-small": delay_small,
}
