"""FTP, FTPS and SFTP, from a real vsftpd, pyftpdlib and sshd on loopback."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from outcomes import arrival, failure, outcome
from support.certificates import Certificates
from support.ftp import PASSWORD, USER, PyFtp, Vsftpd
from support.ftp_banner import FtpBanner, busy, endless_lines
from support.server_process import public_folder, running
from support.sshd import Sshd, make_key
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished, Halt, Halted, Note, Ready, Started
from autodl_lib.worker.files.control_file import decode_slots, encode_slot
from autodl_lib.worker.transfer.filling import PROOF_BYTES

BODY = os.urandom(3_000_000)
OTHER = bytes(reversed(BODY))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileServer:
    """A running server: its files are those of `root`, as `url` shows them."""

    url: str
    root: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def vsftpd() -> Iterator[Vsftpd]:
    with running(Vsftpd) as server:
        yield server


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running(Sshd) as server:
        yield server


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with public_folder() as folder:
        yield Certificates(folder)


@pytest.fixture(scope="module")
def pyftp(certificates: Certificates) -> Iterator[PyFtp]:
    with running(lambda folder: PyFtp(folder, certificates)) as server:
        yield server


@pytest.fixture(scope="module")
def home(sshd: Sshd) -> Iterator[Path]:
    """The home of one whom the SFTP server knows, and who knows it."""
    with public_folder() as folder:
        sshd.make_home(folder / "home")
        yield folder / "home"


@pytest.fixture(params=["ftp", "sftp"])
def files(request: pytest.FixtureRequest) -> FileServer:
    """Each kind of server in turn."""
    if request.param == "ftp":
        vsftpd: Vsftpd = request.getfixturevalue("vsftpd")
        return FileServer(url=vsftpd.url, root=vsftpd.root, environment={})
    sshd: Sshd = request.getfixturevalue("sshd")
    return FileServer(url=sshd.url, root=sshd.root, environment={"HOME": str(request.getfixturevalue("home"))})


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness], files: FileServer) -> WorkerHarness:
    """A worker at home where the server knows it."""
    return start_worker(environment=files.environment)


@pytest.fixture
def at_home(start_worker: Callable[..., WorkerHarness], home: Path) -> WorkerHarness:
    """A worker whom the SFTP server knows."""
    return start_worker(environment={"HOME": str(home)})


@pytest.fixture
def anywhere(start_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker whom nobody knows."""
    return start_worker(environment={"HOME": "/nonexistent"})


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


def halted_midway(url: str, root: Path, worker: WorkerHarness, folder: Path, **fields: object) -> Halted:
    """Pause a slow download of `f`, which is BODY, in the middle; its tag is `t`."""
    (root / "f").write_bytes(BODY)
    os.utime(root / "f", (1e9, 1e9))
    assign = worker.assign(f"{url}/f", folder, limit_rate_bps=200_000, tag="t", **fields)
    worker.await_report(Started, assign.lease, such=lambda report: report.part is not None)  # not: it waits
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert halted.bytes_done < len(BODY)
    return halted


def paused(files: FileServer, worker: WorkerHarness, folder: Path) -> Halted:
    """Pause a slow download in the middle; what came of it is kept."""
    halted = halted_midway(files.url, files.root, worker, folder)
    assert halted.bytes_done > 0
    return halted


def test_a_paused_file_goes_on_where_it_was(files: FileServer, worker: WorkerHarness, folder: Path) -> None:
    halted = paused(files, worker, folder)
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    [ready] = worker.reports_of(again.lease, Ready)
    assert 0 <= ready.bytes_received - (len(BODY) - halted.bytes_done) <= PROOF_BYTES


def test_a_file_of_the_same_size_that_is_another_one_is_fetched_anew(
    files: FileServer, worker: WorkerHarness, folder: Path
) -> None:
    halted = paused(files, worker, folder)
    (files.root / "f").write_bytes(OTHER)
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == OTHER
    assert [note.text for note in worker.reports_of(again.lease, Note)] == ["the remote file changed; starting over"]
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_part_of_nobody_knows_which_version_is_fetched_anew(
    files: FileServer, worker: WorkerHarness, folder: Path
) -> None:
    halted = paused(files, worker, folder)
    control = folder / ".f.autodl-ctl"
    found = decode_slots(control.read_bytes())
    assert found is not None
    record, sequence = found
    assert record.version.last_modified == "Sun, 09 Sep 2001 01:46:40 GMT"
    undated = replace(record, version=replace(record.version, last_modified=None))  # as it was written once
    control.write_bytes(encode_slot(undated, sequence) * 2)
    (files.root / "f").write_bytes(OTHER)
    again = worker.assign(f"{files.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == OTHER


def test_a_file_gets_the_time_that_the_server_says(files: FileServer, worker: WorkerHarness, folder: Path) -> None:
    (files.root / "f").write_bytes(b"x")
    os.utime(files.root / "f", (1e9, 1e9))
    finished = outcome(worker, f"{files.url}/f", folder, remote_time=True)
    assert isinstance(finished, Finished)
    assert (folder / "f").stat().st_mtime == 1e9


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


# --- FTP: a greeting that is none ---


def test_an_ftp_server_that_has_no_room_is_tried_again_later(anywhere: WorkerHarness, folder: Path) -> None:
    with FtpBanner(busy) as server:
        failed = failure(anywhere, f"{server.url}/f", folder)
    assert failed.code is FailureCode.SERVER_BUSY
    assert "421" in failed.message


def test_a_greeting_without_an_end_is_no_ftp(anywhere: WorkerHarness, folder: Path) -> None:
    with FtpBanner(endless_lines) as server:
        assert failure(anywhere, f"{server.url}/f", folder).code is FailureCode.PROTOCOL


# --- FTP without MDTM: nobody knows the file's time ---


@pytest.fixture(scope="module")
def timeless() -> Iterator[Vsftpd]:
    with running(lambda folder: Vsftpd(folder, denied=["MDTM"])) as server:
        yield server


def test_what_came_of_a_file_without_a_time_is_not_kept(
    timeless: Vsftpd, anywhere: WorkerHarness, folder: Path
) -> None:
    halted = halted_midway(timeless.url, timeless.root, anywhere, folder)
    assert (halted.part, halted.bytes_done, list(folder.iterdir())) == (None, 0, [])
    (timeless.root / "f").write_bytes(OTHER)
    again = anywhere.assign(f"{timeless.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(anywhere.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == OTHER


def test_a_server_that_tells_no_time_any_more_can_not_prove_that_a_file_is_the_same(
    vsftpd: Vsftpd, timeless: Vsftpd, anywhere: WorkerHarness, folder: Path
) -> None:
    halted = halted_midway(vsftpd.url, vsftpd.root, anywhere, folder)
    assert halted.bytes_done > 0
    (timeless.root / "f").write_bytes(OTHER)
    again = anywhere.assign(f"{timeless.url}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(anywhere.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == OTHER


def test_where_a_checksum_decides_a_file_without_a_time_goes_on_where_it_was(
    timeless: Vsftpd, anywhere: WorkerHarness, folder: Path
) -> None:
    options = TransferOptions(checksums=(f"sha256={hashlib.sha256(BODY).hexdigest()}",))
    halted = halted_midway(timeless.url, timeless.root, anywhere, folder, options=options)
    assert halted.bytes_done > 0
    again = anywhere.assign(f"{timeless.url}/f", folder, tag="t", name="f", part=halted.part, options=options)
    assert isinstance(anywhere.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    [ready] = anywhere.reports_of(again.lease, Ready)
    assert 0 <= ready.bytes_received - (len(BODY) - halted.bytes_done) <= PROOF_BYTES


def test_a_server_that_agrees_to_go_on_and_begins_anew_is_found_out(
    pyftp: PyFtp, anywhere: WorkerHarness, folder: Path
) -> None:
    """libcurl drops what is too much, so that the size would be right."""
    halted = halted_midway(pyftp.forgetful, pyftp.root, anywhere, folder)
    assert halted.bytes_done > 0
    again = anywhere.assign(f"{pyftp.forgetful}/f", folder, tag="t", name="f", part=halted.part)
    assert isinstance(anywhere.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == BODY


# --- SFTP: keys and hosts ---


def test_a_host_that_is_not_known_is_refused(
    sshd: Sshd, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path
) -> None:
    sshd.make_home(tmp_path / "home", is_known=False)
    worker = start_worker(environment={"HOME": str(tmp_path / "home")})
    (sshd.root / "f").write_bytes(b"x")
    failed = failure(worker, f"{sshd.url}/f", folder)
    assert failed.code is FailureCode.TLS
    assert "known_hosts" in failed.message
    assert arrival(worker, f"{sshd.url}/f", folder, insecure=True) == b"x"
    assert failure(worker, f"{sshd.url}/f", folder).code is FailureCode.TLS


def test_a_host_whose_key_has_changed_is_refused(
    sshd: Sshd, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    sshd.make_home(home, is_known=False)
    make_key(tmp_path / "other", "rsa")
    host = sshd.url.partition("@")[2].partition("/")[0]
    known = f"[127.0.0.1]:{host.rpartition(':')[2]} {(tmp_path / 'other.pub').read_text()}"
    (home / ".ssh" / "known_hosts").write_text(known)
    (sshd.root / "f").write_bytes(b"x")
    worker = start_worker(environment={"HOME": str(home)})
    assert failure(worker, f"{sshd.url}/f", folder).code is FailureCode.TLS


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key_in_the_home_opens_the_server(
    sshd: Sshd, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path, kind: str
) -> None:
    sshd.make_home(tmp_path / "home", kind=kind)
    (sshd.root / "f").write_bytes(b"x")
    worker = start_worker(environment={"HOME": str(tmp_path / "home")})
    assert arrival(worker, f"{sshd.url}/f", folder) == b"x"


def test_a_key_that_needs_a_passphrase_is_passed_over(
    sshd: Sshd, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    sshd.make_home(home, kind="rsa")
    make_key(home / ".ssh" / "id_ed25519", "ed25519", passphrase="open sesame")
    (sshd.root / "f").write_bytes(b"x")
    worker = start_worker(environment={"HOME": str(home)})
    assert arrival(worker, f"{sshd.url}/f", folder) == b"x"


def test_the_key_can_be_named(sshd: Sshd, at_home: WorkerHarness, folder: Path, tmp_path: Path) -> None:
    stranger, friend = tmp_path / "stranger", tmp_path / "friend"
    make_key(stranger, "ed25519")
    make_key(friend, "ed25519")
    sshd.let_in(friend)
    (sshd.root / "f").write_bytes(b"x")
    assert failure(at_home, f"{sshd.url}/f", folder, client_key=str(stranger)).code is FailureCode.AUTHENTICATION
    assert arrival(at_home, f"{sshd.url}/f", folder, client_key=str(friend)) == b"x"
    assert failure(at_home, f"{sshd.url}/f", folder, client_key="/nowhere").code is FailureCode.PERMISSION


def test_without_a_name_the_user_of_this_machine_logs_in(
    sshd: Sshd, start_worker: Callable[..., WorkerHarness], home: Path, folder: Path
) -> None:
    (sshd.root / "f").write_bytes(b"x")
    worker = start_worker(environment={"HOME": str(home), "LOGNAME": "root"})
    assert arrival(worker, f"{sshd.url}/f".replace("root@", ""), folder) == b"x"


# --- FTP: TLS and logins ---


@pytest.mark.parametrize("implicit", [False, True])
def test_vsftpd_sends_files_inside_of_tls(
    certificates: Certificates, start_worker: Callable[..., WorkerHarness], folder: Path, implicit: bool
) -> None:
    worker = start_worker(connect_timeout_s=1.0)
    with running(lambda own: Vsftpd(own, certificates, implicit=implicit)) as server:
        (server.root / "f").write_bytes(BODY)
        assert arrival_in_the_end(worker, f"{server.url}/f", folder, ca_file=str(certificates.ca_file)) == BODY
        assert arrival_in_the_end(worker, f"{server.url}/f", folder, insecure=True) == BODY


def arrival_in_the_end(worker: WorkerHarness, url: str, folder: Path, **options: object) -> bytes:
    """Download as a supervisor does, again where that makes sense: libcurl 7.88 does not always get through."""
    report = outcome(worker, url, folder, **options)
    for _ in range(20):
        if isinstance(report, Finished):
            break
        assert report.code in RETRYABLE, report
        report = outcome(worker, url, folder, **options)
    assert isinstance(report, Finished), report
    data = Path(report.dest).read_bytes()
    Path(report.dest).unlink()
    return data


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_a_login_goes_through_tls_where_certificates_count(
    pyftp: PyFtp, certificates: Certificates, anywhere: WorkerHarness, folder: Path, kind: str
) -> None:
    (pyftp.root / "f").write_bytes(BODY)
    url, ca_file = f"{getattr(pyftp, kind)}/f", str(certificates.ca_file)
    assert arrival(anywhere, url, folder, ca_file=ca_file, username=USER, password=PASSWORD) == BODY
    assert pyftp.logins()[-1] == (USER, True)


def test_ftps_is_refused_when_nobody_vouches_for_the_server(
    pyftp: PyFtp, anywhere: WorkerHarness, folder: Path
) -> None:
    (pyftp.root / "f").write_bytes(BODY)
    assert failure(anywhere, f"{pyftp.implicit}/f", folder).code is FailureCode.TLS


def test_who_says_which_certificates_count_gets_no_file_without_tls(
    pyftp: PyFtp, certificates: Certificates, anywhere: WorkerHarness, folder: Path
) -> None:
    (pyftp.root / "f").write_bytes(BODY)
    failed = failure(anywhere, f"{pyftp.plain}/f", folder, ca_file=str(certificates.ca_file))
    assert failed.code is FailureCode.TLS


def test_an_ftp_login_is_for_its_task_only(pyftp: PyFtp, anywhere: WorkerHarness, folder: Path) -> None:
    (pyftp.root / "f").write_bytes(BODY)
    assert arrival(anywhere, f"{pyftp.plain}/f", folder, username=USER, password=PASSWORD) == BODY
    assert arrival(anywhere, f"{pyftp.plain}/f", folder) == BODY
    assert pyftp.logins()[-2:] == [(USER, False), ("anonymous", False)]


def test_a_wrong_ftp_password_is_final(pyftp: PyFtp, anywhere: WorkerHarness, folder: Path) -> None:
    failed = failure(anywhere, f"{pyftp.plain}/f", folder, username=USER, password="wr0ng")
    assert failed.code is FailureCode.AUTHENTICATION
    assert "wr0ng" not in failed.message
    assert USER not in failed.message


def test_netrc_logs_in_to_ftp(
    pyftp: PyFtp, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path
) -> None:
    (pyftp.root / "f").write_bytes(BODY)
    (tmp_path / ".netrc").write_text(f'machine 127.0.0.1\n  login {USER}\n  password "{PASSWORD}"\n')
    worker = start_worker(environment={"HOME": str(tmp_path)})
    assert arrival(worker, f"{pyftp.plain}/f", folder, netrc=True) == BODY
    assert pyftp.logins()[-1] == (USER, False)
