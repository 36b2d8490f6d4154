"""Speed against peers, measured in the same run: `python tests/bench/bench.py [--rounds N] [--files N] [--mib N]`.

Starts an nginx and a daemon of its own on loopback, takes turns between autodl and each peer that is
installed, and prints medians and ratios. Nothing here asserts a time. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests"))

from support.daemon import AUTODL, Daemon  # noqa: E402
from support.waiting import wait_until  # noqa: E402

_NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running nginx: where its files are, and their address."""

    files: Path
    base: str


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run an nginx without the limits that the tests' one has."""
    (folder / "files").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(["nginx", "-e", str(folder / "error.log"), "-c", str(config)])

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, "nginx listens")
        yield Server(folder / "files", f"http://127.0.0.1:{port}/")
    finally:
        process.terminate()
        process.wait()


def worker_peak_mib(daemon: Daemon) -> float:
    """Return the highest resident size that a live worker has had."""
    peaks = []
    for process in daemon.family().workers:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks, default=0.0)


def get(daemon: Daemon, *arguments: str) -> list[str]:
    """Return the command of a download by autodl."""
    return [*AUTODL, "get", "-q", "--socket", str(daemon.socket), *arguments]


def timed(command: list[str], folder: Path) -> float:
    """Run a command in an empty folder; return seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.monotonic() - began


def compare(title: str, ours: Callable[[], float], peers: dict[str, Callable[[], float]], rounds: int) -> None:
    """Take turns, then print the median of each and our ratio to it."""
    runs: dict[str, list[float]] = {"autodl": [], **{name: [] for name in peers}}
    for _ in range(rounds):
        runs["autodl"].append(ours())
        for name, peer in peers.items():
            runs[name].append(peer())
    print(f"\n{title}")
    mine = statistics.median(runs["autodl"])
    for name, seconds in runs.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        ratio = "" if name == "autodl" else f"   autodl takes {mine / middle:.2f} x as long"
        print(f"  {name:28} median {middle:6.2f} s  ({spread}){ratio}", flush=True)


def one_large_file(daemon: Daemon, nginx: Server, scratch: Path, mib: int, rounds: int) -> None:
    """One file, saved to disk by each."""
    url = nginx.base + "large.bin"
    with (nginx.files / "large.bin").open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    folder = scratch / "large"

    def fetch(command: list[str]) -> Callable[[], float]:
        return lambda: timed(command, folder)

    peers = {"curl -o": fetch(["curl", "-sS", "-o", "large.bin", url])}
    if shutil.which("aria2c"):
        peers["aria2c -x1"] = fetch(["aria2c", "-q", "-x1", url])
        peers["aria2c -x4"] = fetch(["aria2c", "-q", "-x4", "-s4", url])
    if shutil.which("wget"):
        peers["wget"] = fetch(["wget", "-q", url])
    ours = fetch(get(daemon, url))
    compare(f"one file of {mib} MiB", ours, peers, rounds)
    print(f"  peak memory of a worker: {worker_peak_mib(daemon):.1f} MiB")


def many_small_files(daemon: Daemon, nginx: Server, scratch: Path, files: int, rounds: int) -> None:
    """Many files of 10 KiB, from a list."""
    (nginx.files / "small").mkdir()
    for number in range(files):
        (nginx.files / "small" / f"{number}.bin").write_bytes(os.urandom(10240))
    urls = scratch / "urls.txt"
    urls.write_text("".join(f"{nginx.base}small/{number}.bin\n" for number in range(files)))
    config = scratch / "curl.cfg"
    config.write_text("".join(f'url = "{nginx.base}small/{n}.bin"\noutput = "{n}.bin"\n' for n in range(files)))
    folder = scratch / "small"

    def ours() -> float:
        seconds = timed(get(daemon, "-i", str(urls)), folder)
        found = len(list(folder.iterdir()))
        if found != files:
            raise SystemExit(f"autodl saved {found} files of {files}")
        return seconds

    peers: dict[str, Callable[[], float]] = {
        "curl (one after another)": lambda: timed(["curl", "-sS", "-K", str(config)], folder),
    }
    if shutil.which("aria2c"):
        peers["aria2c -j16"] = lambda: timed(["aria2c", "-q", "-j16", "-i", str(urls)], folder)
    compare(f"{files} files of 10 KiB, synced to disk by autodl alone", ours, peers, rounds)
    print(f"  peak memory of a worker: {worker_peak_mib(daemon):.1f} MiB")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where to save; its disk is measured too")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="autodl-bench-", dir=arguments.dir))
    scratch.chmod(0o755)  # nginx reads it as its own user
    try:
        with serving(scratch / "nginx") as nginx:
            for durable in (True, False):
                print(f"\n== durable = {str(durable).lower()} ==", flush=True)
                folder = scratch / f"daemon-{durable}"
                folder.mkdir()
                config = f"max_tasks_num = 4\n[transfer]\ndurable = {str(durable).lower()}\n"
                daemon = Daemon(folder, config=config).start()
                try:
                    one_large_file(daemon, nginx, scratch, arguments.mib, arguments.rounds)
                    many_small_files(daemon, nginx, scratch, arguments.files, arguments.rounds)
                finally:
                    daemon.end_all()
                shutil.rmtree(nginx.files / "small")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
