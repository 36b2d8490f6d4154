"""What the bench found, as tables to read and as JSON to keep.

Runs as: the bench.  Talks to: nobody; no I/O but the JSON file.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from cases import Scene, Target
from measure import Runs
from ours import Handles, Upkeep

_MEMORY_TARGET_MIB = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a case's table; `median_s` is None where no run went well, a reckoned row has no runs."""

    name: str
    ours: bool
    installed: bool
    reckoned: bool
    median_s: float | None
    seconds: list[float]
    troubles: list[str]
    ratios: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target, and how autodl did; None where there is nothing to compare."""

    of: str
    text: str
    seconds: float | None
    limit_s: float | None
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All about one case."""

    case: str
    title: str
    size_bytes: int
    rows: list[Row]
    verdicts: list[Verdict]
    upkeep: Upkeep


def evaluate(case: str, scene: Scene, table: list[Runs], upkeep: Upkeep) -> Result:
    """Reckon medians, ratios and verdicts."""
    medians = {runs.program.name: statistics.median(runs.seconds) for runs in table if runs.seconds}
    medians |= {bound.name: bound.seconds for bound in scene.bounds}
    ours = [runs.program.name for runs in table if runs.program.ours]

    def ratios(name: str) -> dict[str, float]:
        if name not in medians or name in ours:
            return {}
        return {variant: medians[variant] / medians[name] for variant in ours if variant in medians}

    rows = [
        Row(
            name=runs.program.name,
            ours=runs.program.ours,
            installed=runs.program.is_installed,
            reckoned=False,
            median_s=medians.get(runs.program.name),
            seconds=runs.seconds,
            troubles=runs.troubles,
            ratios=ratios(runs.program.name),
        )
        for runs in table
    ]
    rows += [
        Row(
            name=bound.name,
            ours=False,
            installed=True,
            reckoned=True,
            median_s=bound.seconds,
            seconds=[],
            troubles=[],
            ratios=ratios(bound.name),
        )
        for bound in scene.bounds
    ]
    verdicts = [_judge(target, medians) for target in scene.targets]
    return Result(
        case=case, title=scene.title, size_bytes=scene.size_bytes, rows=rows, verdicts=verdicts, upkeep=upkeep
    )


def _judge(target: Target, medians: dict[str, float]) -> Verdict:
    rivals = [seconds for name, seconds in medians.items() if name.startswith(target.against)]
    mine = medians.get(target.of)
    limit_s = min(rivals) * target.factor if rivals else None
    met = None if mine is None or limit_s is None else mine <= limit_s
    return Verdict(of=target.of, text=target.text, seconds=mine, limit_s=limit_s, met=met)


def text(result: Result) -> str:
    """Return a case's table; a ratio is autodl's median over that of the row."""
    ours = [row.name for row in result.rows if row.ours]
    lines = ["", f"== {result.case}: {result.title} =="]
    lines.append(f"{'program':26}{'median':>9}   {'from - to':15}" + "".join(f"{name + ' /':>14}" for name in ours))
    for row in result.rows:
        lines.append(_row_text(row, ours))
        lines += [f"    {count} x {trouble}" for trouble, count in _counted(row.troubles)]
    for verdict in result.verdicts:
        lines.append(_verdict_text(verdict))
    return "\n".join(lines + _upkeep_text(result.upkeep))


def _row_text(row: Row, ours: list[str]) -> str:
    if not row.installed:
        return f"{row.name:26}   (not installed)"
    if row.median_s is None:
        return f"{row.name:26}   (no run went well)"
    spread = "reckoned" if row.reckoned else f"{min(row.seconds):.2f} - {max(row.seconds):.2f}"
    ratios = "".join(f"{row.ratios[name]:14.2f}" if name in row.ratios else " " * 14 for name in ours)
    return f"{row.name:26}{row.median_s:7.2f} s   {spread:15}{ratios}".rstrip()


def _counted(troubles: list[str]) -> list[tuple[str, int]]:
    return [(trouble, troubles.count(trouble)) for trouble in dict.fromkeys(troubles)]


def _verdict_text(verdict: Verdict) -> str:
    if verdict.met is None or verdict.seconds is None or verdict.limit_s is None:
        return f"target  {verdict.of:12} {verdict.text:36} nothing to compare"
    word = "met" if verdict.met else "MISSED"
    return f"target  {verdict.of:12} {verdict.text:36} {verdict.seconds:6.2f} s of {verdict.limit_s:6.2f} s  {word}"


def _upkeep_text(upkeep: Upkeep) -> list[str]:
    word = "met" if upkeep.worker_peak_rss_mib <= _MEMORY_TARGET_MIB else "MISSED"
    return [
        f"target  {'worker':12} {'peak memory <= 40 MiB':36} {upkeep.worker_peak_rss_mib:6.1f} MiB  {word}",
        f"open in workers before: {_handles_text(upkeep.before)}; after: {_handles_text(upkeep.after)}",
        f"not in the times above: daemon's start {upkeep.daemon_start_s:.2f} s, first get of a byte"
        f" {upkeep.first_get_s:.2f} s; in each of them: a warm get of a byte, {upkeep.fixed_cost_s:.2f} s",
    ]


def _handles_text(handles: Handles) -> str:
    return (
        f"{handles.fds} descriptors of {handles.workers} worker(s),"
        f" {handles.inet_sockets} sockets, {handles.files} files"
    )


def summary(results: list[Result]) -> str:
    """Return all targets in one list."""
    lines = ["", "== targets =="]
    for result in results:
        lines += [f"{result.case:12} {_verdict_text(verdict)}" for verdict in result.verdicts]
    return "\n".join(lines)


def save(path: Path, run: dict[str, object], results: list[Result]) -> None:
    """Write everything as one JSON document; `run` says on what and how it was measured."""
    path.write_text(json.dumps({"run": run, "cases": [asdict(result) for result in results]}, indent=1) + "\n")
