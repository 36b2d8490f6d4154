"""What an idle daemon costs, and what a command does: `python tests/bench/idle.py [SECONDS] [--workers N]`.

After the start and one download: memory (proportional) of each process, then processor time and wake-ups of each over
the seconds. Asked for: 60 MiB in all, 0.0%. Then `autodl status` from the shell beside `python -c 'import click'`,
asked for: twice as long at most. With `--workers`: the memory of so many at work; asked for: 8 MiB each of 100.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from servers import MIB, Nginx, make_file, nginx
from support.daemon import AUTODL, Daemon
from support.processes import Gone, marked
from support.waiting import wait_until

_RUNS = 21
_IDLE_TIMEOUT_S = 30.0


def memory_mib(pid: int) -> float:
    """Return a process's proportional memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def used(pid: int) -> tuple[float, int]:
    """Return the processor time of all threads of a process, in ms, and how often they woke up."""
    spent_ns, switches = 0, 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        spent_ns += int((thread / "schedstat").read_text().split()[0])
        switches += int((thread / "schedstat").read_text().split()[2])
    return spent_ns / 1e6, switches


def name_of(process: psutil.Process, daemon: Daemon) -> str:
    """Return what a process is."""
    family = daemon.family()
    names = {daemon.pid: "supervisor"}
    names |= {one.pid: name for one, name in ((family.forkserver, "forkserver"), (family.manager, "queue")) if one}
    return names.get(process.pid, "resource tracker")


def idle(daemon: Daemon, seconds: float) -> None:
    """Look at a daemon that has nothing to do."""
    wait_until(lambda: not daemon.family().workers, "idle workers end", timeout_s=_IDLE_TIMEOUT_S)
    time.sleep(2.0)
    processes = marked(daemon.mark)
    before = {process.pid: used(process.pid) for process in processes}
    time.sleep(seconds)
    total_mib = total_ms = 0.0
    for process in processes:
        spent_ms, woken = (now - then for now, then in zip(used(process.pid), before[process.pid], strict=True))
        size_mib = memory_mib(process.pid)
        print(f"{name_of(process, daemon):18} {size_mib:6.1f} MiB {spent_ms:8.2f} ms {int(woken):6d} wake-ups")
        total_mib, total_ms = total_mib + size_mib, total_ms + spent_ms
    share = total_ms / 10 / seconds
    print(f"{'all':18} {total_mib:6.1f} of 60 MiB, {share:.3f}% of a processor over {seconds:.0f} s\n", flush=True)


def shell(daemon: Daemon) -> None:
    """Compare the start of a command with the least that it needs."""
    task_id = daemon.add_one("http://127.0.0.1:1/", "--paused")
    environment = daemon.environment(AUTODL_SOCKET=str(daemon.socket))
    commands = {
        "python -c 'import click'": [sys.executable, "-c", "import click"],
        "autodl status": [*AUTODL, "status", str(task_id)],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(_RUNS):
        for name, command in commands.items():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name].append((wall_s * 1000, spent_s * 1000))
    medians = {name: [sorted(column)[_RUNS // 2] for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (wall_ms, spent_ms) in medians.items():
        print(f"{name:26} {wall_ms:6.1f} ms, {spent_ms:6.1f} ms of a processor")
    least, ours = medians.values()
    print(f"{'ratio':26} {ours[0] / least[0]:6.2f} of 2.00, {ours[1] / least[1]:.2f}\n", flush=True)


def working(daemon: Daemon, server: Nginx, count: int) -> None:
    """Look at many workers."""
    make_file(server.files / "large.bin", 64 * MIB)
    ids = daemon.add(*[f"{server.base}large.bin?{number}" for number in range(count)], "--limit-rate", "200K")
    for task_id in ids:
        daemon.await_bytes(task_id)
    sizes = []
    for worker in daemon.family().workers:
        with contextlib.suppress(*Gone, OSError):
            sizes.append(memory_mib(worker.pid))
    done = sorted(task["bytes_done"] for task in daemon.tasks() if task["id"] in set(ids))
    sizes.sort()
    print(
        f"{len(sizes)} workers: {sizes[0]:.1f} - {sizes[-1]:.1f} MiB each, median {sizes[len(sizes) // 2]:.1f} of 8.0"
    )
    print(f"bytes that each has had: {done[0]} - {done[-1]}, median {done[len(done) // 2]}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="autodl-idle-"))
    folder.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(nginx(folder / "nginx"))
            make_file(server.files / "byte.bin", 1)
            (folder / "daemon").mkdir()
            number = max(10, options.workers)
            config = f"max_tasks_num = {number}\n[transfer]\nmin_free_bytes = 0\nconnections_per_host = {number * 8}\n"
            daemon = Daemon(folder / "daemon", config=config)
            stack.callback(daemon.end_all)
            daemon.start()
            daemon.await_settled(daemon.add(server.base + "byte.bin"))
            idle(daemon, options.seconds)
            shell(daemon)
            if options.workers:
                working(daemon, server, options.workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
