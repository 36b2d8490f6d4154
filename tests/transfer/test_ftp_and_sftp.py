"""FTP and SFTP, from a real vsftpd and a real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Failed, Finished, Halt, Halted, Note, Ready, Started

BODY = os.urandom(3_000_000)
_VSFTPD = """
listen=YES
listen_ipv6=NO
background=NO
listen_address=127.0.0.1
listen_port={port}
anonymous_enable=YES
anon_root={root}
local_enable=NO
xferlog_enable=NO
seccomp_sandbox=NO
secure_chroot_dir={empty}
"""
_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
# What libssh2 1.10, the floor, knows of RSA:
HostKeyAlgorithms +ssh-rsa
PubkeyAcceptedAlgorithms +ssh-rsa
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileServer:
    """A running server: its files are those of `root`, as `url` shows them."""

    url: str
    root: Path
    environment: dict[str, str]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ftp(place: Path) -> Iterator[FileServer]:
    """An anonymous FTP server."""
    root, empty, config, port = place / "root", place / "empty", place / "vsftpd.conf", free_port()
    root.mkdir()
    empty.mkdir()
    config.write_text(_VSFTPD.format(port=port, root=root, empty=empty))
    config.chmod(0o600)
    process = subprocess.Popen([_program("vsftpd"), str(config)])
    wait_until(lambda: answers(port), "vsftpd listens")
    yield FileServer(url=f"ftp://127.0.0.1:{port}", root=root, environment={})
    process.terminate()
    process.wait()


@pytest.fixture
def sftp(place: Path) -> Iterator[FileServer]:
    """An SFTP server that takes the key of a home folder made for the test."""
    root, home, port = place / "root", place / "home", free_port()
    root.mkdir()
    (home / ".ssh").mkdir(parents=True)
    make_key = ("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f")
    subprocess.run([*make_key, str(home / ".ssh" / "id_rsa")], check=True)
    subprocess.run([*make_key, str(place / "host_key")], check=True)
    shutil.copy(home / ".ssh" / "id_rsa.pub", place / "authorized_keys")
    host_key = (place / "host_key.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (place / "sshd_config").write_text(_SSHD.format(port=port, folder=place))
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [_program("sshd"), "-D", "-e", "-f", str(place / "sshd_config")], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: answers(port), "sshd listens")
    url = f"sftp://root@127.0.0.1:{port}{root}"
    yield FileServer(url=url, root=root, environment={"HOME": str(home)})
    process.terminate()
    process.wait()


@pytest.fixture(params=["ftp", "sftp"])
def files(request: pytest.FixtureRequest) -> FileServer:
    """Each kind of server in turn."""
    server: FileServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness], files: FileServer) -> WorkerHarness:
    """A worker at home where the server knows it."""
    return start_worker(environment=files.environment)


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found is not None, f"{name} is not installed; see .ci/run"
    return found


@pytest.mark.parametrize("size", [0, 1, 10_000, 3_000_000])
def test_a_file_arrives(files: FileServer, worker: WorkerHarness, folder: Path, size: int) -> None:
    (files.root / "f").write_bytes(BODY[:size])
    finished = worker.await_end(worker.assign(f"{files.url}/f", folder).lease)
    assert isinstance(finished, Finished)
    assert (folder / "f").read_bytes() == BODY[:size]
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_file_that_is_missing_says_so(files: FileServer, worker: WorkerHarness, folder: Path) -> None:
    failed = worker.await_end(worker.assign(f"{files.url}/nope", folder).lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.REMOTE_MISSING


def paused(files: FileServer, worker: WorkerHarness, folder: Path) -> Halted:
    """Pause a slow download in the middle; its tag is `t`."""
    (files.root / "f").write_bytes(BODY)
    assign = worker.assign(f"{files.url}/f", folder, limit_rate_bps=2_000_000, tag="t")
    worker.await_report(Started, assign.lease)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert 0 < halted.bytes_done < len(BODY)
    return halted


def test_a_paused_file_goes_on_where_it_was(files: FileServer, worker: WorkerHarness, folder: Path) -> None:
    halted = paused(files, worker, folder)
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    [ready] = worker.reports_of(again.lease, Ready)
    assert ready.bytes_received == len(BODY) - halted.bytes_done


def test_a_file_of_another_size_is_fetched_anew(files: FileServer, worker: WorkerHarness, folder: Path) -> None:
    halted = paused(files, worker, folder)
    (files.root / "f").write_bytes(b"more" + BODY)
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == b"more" + BODY
    assert [note.text for note in worker.reports_of(again.lease, Note)] == ["the remote file changed; starting over"]


def test_a_file_that_became_shorter_than_the_part_is_fetched_anew(
    files: FileServer, worker: WorkerHarness, folder: Path
) -> None:
    halted = paused(files, worker, folder)
    (files.root / "f").write_bytes(BODY[:10])
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == BODY[:10]


def test_a_host_that_is_not_known_is_refused(
    sftp: FileServer, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path
) -> None:
    worker = start_worker(environment={"HOME": str(tmp_path)})
    (sftp.root / "f").write_bytes(b"x")
    failed = worker.await_end(worker.assign(f"{sftp.url}/f", folder).lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.TLS
    assert "known_hosts" in failed.message
    assert list(folder.iterdir()) == []
