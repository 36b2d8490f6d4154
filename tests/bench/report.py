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
    """A target, and how autodl did: at most `limit` is met; None where there is nothing to compare."""

    of: str
    text: str
    value: float | None
    limit: float | None
    unit: str

    @property
    def word(self) -> str:
        """How that is said."""
        if self.value is None or self.limit is None:
            return "nothing to compare"
        return "met" if self.value <= self.limit else "MISSED"


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
    verdicts = [_judge(target, medians) for target in scene.targets] + _judge_worker(upkeep, scene.many_tasks)
    return Result(
        case=case, title=scene.title, size_bytes=scene.size_bytes, rows=rows, verdicts=verdicts, upkeep=upkeep
    )


def _judge(target: Target, medians: dict[str, float]) -> Verdict:
    rivals = [seconds for name, seconds in medians.items() if name.startswith(target.against)]
    limit_s = min(rivals) * target.factor if rivals else None
    return Verdict(of=target.of, text=target.text, value=medians.get(target.of), limit=limit_s, unit="s")


def _judge_worker(upkeep: Upkeep, many_tasks: bool) -> list[Verdict]:
    if upkeep.worker_peak_rss_mib is None:
        return []
    before, after = upkeep.before, upkeep.after
    found: list[tuple[str, float, float, str]] = [
        ("peak memory <= 40 MiB", upkeep.worker_peak_rss_mib, _MEMORY_TARGET_MIB, "MiB"),
        ("no file of a task left open", after.task_files, 0, "files"),
    ]
    if many_tasks:
        warm = max(1, before.most_inet_sockets)
        found.append(("no more sockets than after one task", after.most_inet_sockets, warm, "sockets"))
    return [Verdict(of="worker", text=text, value=value, limit=limit, unit=unit) for text, value, limit, unit in found]


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
    line = f"target  {verdict.of:12} {verdict.text:36}"
    if verdict.value is None or verdict.limit is None:
        return f"{line} {verdict.word}"
    return f"{line} {verdict.value:6.2f} of {verdict.limit:6.2f} {verdict.unit:8} {verdict.word}"


def _upkeep_text(upkeep: Upkeep) -> list[str]:
    return [
        f"open before: {_handles_text(upkeep.before)}",
        f"open after:  {_handles_text(upkeep.after)}",
        f"not in the times above: daemon's start {upkeep.daemon_start_s:.2f} s, first get of a byte"
        f" {upkeep.first_get_s:.2f} s; in each of autodl's: a warm get of a byte, {upkeep.fixed_cost_s:.2f} s",
    ]


def _handles_text(handles: Handles) -> str:
    return (
        f"{handles.workers} worker(s), none with more than {handles.most_fds} descriptors and"
        f" {handles.most_inet_sockets} sockets; of tasks {handles.task_files} files, {handles.task_folders} folders"
    )


def summary(results: list[Result]) -> str:
    """Return all targets in one list."""
    lines = ["", "== targets =="]
    for result in results:
        lines += [f"{result.case:12} {_verdict_text(verdict)}" for verdict in result.verdicts]
    return "\n".join(lines)


def save(path: Path, run: dict[str, object], results: list[Result]) -> None:
    """Write everything as one JSON document; `run` says on what and how it was measured."""
    path.write_text(json.dumps({"run": run, "cases": [_document(result) for result in results]}, indent=1) + "\n")


def _document(result: Result) -> dict[str, object]:
    verdicts = [{**asdict(verdict), "verdict": verdict.word} for verdict in result.verdicts]
    return {**asdict(result), "verdicts": verdicts}
