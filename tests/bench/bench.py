"""Speed against other programs, measured in the same run: `python tests/bench/bench.py [CASE...] [--rounds N]`.

Runs as: who wants to know; root or not.  Talks to: servers on loopback that it starts, a private daemon of its own.
Prints medians, ratios, and the issue's targets with `met` or `MISSED`. Nothing here asserts a time. README.md, beside
this file, says how to read it. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import peers
import report
from cases import CASES, Scene, Sizes, Stage
from measure import Plan, measure
from ours import Ours
from servers import Nginx, make_file, nginx


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program is run (default 3)")
    parser.add_argument("--only", metavar="REGEX", help="only programs whose row matches, such as 'autodl|axel'")
    parser.add_argument("--mib", type=int, default=1024, help="size of the large file; four and delay take a quarter")
    parser.add_argument("--files", type=int, default=10_000, help="number of small files; delay-small takes a 50th")
    parser.add_argument("--dir", type=Path, help="where all programs save to (default: a fresh folder in /var/tmp)")
    parser.add_argument("--not-durable", action="store_true", help="run autodl with durable = false")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds that one run may take")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the order of programs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save everything as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return arguments


def play(case: str, folder: Path, server: Nginx, arguments: argparse.Namespace) -> report.Result:
    """Set up a case, measure it, take it down."""
    folder.mkdir()
    with ExitStack() as stack:
        saved = folder / "saved"
        byte_url = server.base + "byte.bin"
        ours = Ours(folder / "daemon", saved, durable=not arguments.not_durable, byte_url=byte_url)
        stack.callback(ours.end)
        sizes = Sizes(large_mib=arguments.mib, small_files=arguments.files)
        stage = Stage(folder=folder, nginx=server, ours=ours, sizes=sizes)
        scene = _narrowed(stack.enter_context(CASES[case](stage)), arguments.only)
        plan = Plan(rounds=arguments.rounds, seed=arguments.seed, timeout_s=arguments.timeout)
        table = measure(scene, ours, plan)
        return report.evaluate(case, scene, table, ours.upkeep())


def _narrowed(scene: Scene, only: str | None) -> Scene:
    if only is None:
        return scene
    programs = [program for program in scene.programs if re.search(only, program.name)]
    left = {program.name for program in programs}
    return replace(scene, programs=programs, targets=[target for target in scene.targets if target.of in left])


def about(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what was measured on, and how."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "peers": peers.versions(),
        "durable": not arguments.not_durable,
        "rounds": arguments.rounds,
        "seed": arguments.seed,
    }


def main() -> None:
    """Measure."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # by way of every `finally`
    run = about(arguments)
    for name, value in run.items():
        print(f"{name}: {value}")
    results = []
    if arguments.dir is not None:
        arguments.dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="autodl-bench-", dir=arguments.dir or "/var/tmp"))
    scratch.chmod(0o755)  # nginx reads it as its own user
    try:
        for case in arguments.cases or CASES:
            with nginx(scratch / f"{case}-nginx") as server:
                make_file(server.files / "byte.bin", 1)
                result = play(case, scratch / case, server, arguments)
            results.append(result)
            print(report.text(result), flush=True)
            for name in (case, f"{case}-nginx"):
                shutil.rmtree(scratch / name, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(report.summary(results))
    if arguments.json is not None:
        report.save(arguments.json, run, results)


if __name__ == "__main__":
    main()
