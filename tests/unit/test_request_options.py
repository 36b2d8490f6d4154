"""What libcurl is asked to do for a request: files are looked at first, and a handle with options serves no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pycurl
import pytest

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, HttpVersion, TransferOptions
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.network import request_options
from autodl_lib.worker.network.login_options import has_same_origin, of_mirror
from autodl_lib.worker.network.request_options import Request, new_handle, set_options
from autodl_lib.worker.network.verdicts import TaskFailed

SETTINGS = TransferSettings(
    connect_timeout_s=10.0, stall_timeout_s=20.0, min_free_bytes=0, durable=True, max_redirects=5, user_agent=""
)


class RecordingHandle:
    """Remembers what is set."""

    def __init__(self) -> None:
        self.options: dict[int, object] = {}

    def setopt(self, option: int, value: object) -> None:
        """See pycurl.Curl."""
        self.options[option] = value

    def unsetopt(self, option: int) -> None:
        """See pycurl.Curl."""
        self.options[option] = None


def request(url: str = "http://h/f", **options: object) -> Request:
    """Make a request."""
    return Request(
        url=url.encode(),
        headers=(),
        resume_from=0,
        limit_rate_bps=0,
        settings=SETTINGS,
        options=TransferOptions(**options) if options else NO_OPTIONS,
    )


def options_of(asked: Request, before: Request | None = None) -> dict[int, object]:
    """Return what is set for a request."""
    handle = RecordingHandle()
    set_options(handle, asked, before)  # type: ignore[arg-type]
    return handle.options


def test_a_warm_handle_gets_no_more_than_the_next_url() -> None:
    assert options_of(request("http://h/2"), request("http://h/1")) == {pycurl.URL: b"http://h/2"}
    only_checked = request("http://h/2", checksums=("sha256=00",), mirrors=("http://m/",), connections=4)
    assert options_of(only_checked, request("http://h/1")) == {pycurl.URL: b"http://h/2"}
    assert not only_checked.has_credentials()


@pytest.mark.parametrize(
    "options",
    [
        {"username": "u", "password": "p"},
        {"netrc": True},
        {"referer": "http://r/"},
        {"user_agent": "x"},
        {"cookie_file": "/dev/null"},
        {"proxy": ""},
        {"no_proxy": "*"},
        {"ca_file": "/x"},
        {"client_cert": "/x"},
        {"client_key": "/x"},
        {"insecure": True},
        {"ip_version": "4"},
        {"interface": "lo"},
        {"http_version": HttpVersion.HTTP_1_1},
    ],
)
def test_a_handle_that_had_options_is_not_kept(options: dict[str, object]) -> None:
    before = request(**options)
    assert before.has_credentials()
    with pytest.raises(RuntimeError):
        options_of(request(), before)


@pytest.mark.parametrize("url", ["sftp://h/f", "http://u@h/f", "https://u:p@h/f"])
def test_a_handle_that_had_a_name_is_not_kept(url: str) -> None:
    assert request(url).has_credentials()


def test_every_option_is_accepted_by_libcurl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("file", ".netrc"):
        (tmp_path / name).write_text("x")
    for url in ("http://h/", "https://h/", "ftp://h/", "ftps://h/", "sftp://h/"):
        for options in (
            {"username": "ü", "password": "ß", "referer": "r", "user_agent": "u", "cookie_file": "~/file"},
            {"proxy": "socks5h://u:p@h:1", "no_proxy": "a,b", "netrc": True},
            {"ca_file": "~/file", "client_cert": "~/file", "client_key": "~/file", "insecure": True},
            {"ip_version": "6", "interface": "::1", "http_version": HttpVersion.HTTP_1_1},
        ):
            set_options(new_handle(), request(url, **options), None)


def test_a_task_that_can_not_be_met_leaves_the_handle_as_it_was() -> None:
    handle = RecordingHandle()
    with pytest.raises(TaskFailed, match="could not read the CA certificates /no/such: No such file"):
        set_options(handle, request(ca_file="/no/such"), request())  # type: ignore[arg-type]
    assert handle.options == {}


def test_http_3_without_libcurls_help_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_options, "_HAS_HTTP3", False)
    with pytest.raises(TaskFailed, match="HTTP/3") as failed:
        options_of(request("https://h/", http_version=HttpVersion.HTTP_3))
    assert failed.value.verdict.code is FailureCode.BAD_URL


def test_a_password_goes_out_unasked_only_inside_of_tls() -> None:
    login = {"username": "u", "password": "p"}
    assert options_of(request("http://h/", **login))[pycurl.HTTPAUTH] & pycurl.HTTPAUTH_DIGEST
    assert pycurl.HTTPAUTH not in options_of(request("https://h/", **login))


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("https://h/", {"username": "u", "password": "p"}, False),
        ("https://h/", {"ca_file": "/dev/null", "proxy": "http://p:1"}, False),
        ("https://h/", {"proxy": "http://u:p@p:1"}, True),
        ("https://h/", {"ip_version": "4"}, True),
        ("sftp://h/", {"insecure": True}, True),
        ("ftp://h/", {"insecure": True}, True),
    ],
)
def test_a_connection_is_shared_only_where_libcurl_sees_the_difference(
    url: str, options: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autodl_lib.worker.network.tls_options.readable_file", lambda path, _what: path.encode())
    chosen = options_of(request(url, **options))
    assert (pycurl.FRESH_CONNECT in chosen) is expected
    assert (pycurl.FORBID_REUSE in chosen) is expected


@pytest.mark.parametrize(
    ("interface", "expected"), [("eth0", b"if!eth0"), ("10.0.0.1", b"host!10.0.0.1"), ("::1", b"host!::1")]
)
def test_an_interface_is_never_a_name_to_be_resolved(interface: str, expected: bytes) -> None:
    assert options_of(request(interface=interface))[pycurl.INTERFACE] == expected


def test_ftp_is_asked_of_a_proxy_as_ftp_and_http_as_http() -> None:
    assert options_of(request("ftp://h/f"))[pycurl.HTTPPROXYTUNNEL] == 1
    assert options_of(request("http://h/f"), request("ftp://h/f"))[pycurl.HTTPPROXYTUNNEL] == 0


def test_a_mirror_elsewhere_gets_no_login() -> None:
    options = TransferOptions(username="u", password="p", referer="r")
    kept, headers = of_mirror(options, ("Authorization: x", "cookie : y", "Accept: z"))
    assert kept == replace(options, username=None, password=None)
    assert headers == ("Accept: z",)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("https://h/a", "https://H:443/b", True),
        ("https://h/a", "https://h:444/a", False),
        ("https://h/a", "http://h:443/a", False),
        ("https://h/a", "https://i/a", False),
        ("https://h/a", "nonsense", False),
    ],
)
def test_where_a_login_is_for_is_host_port_and_protocol(one: str, other: str, expected: bool) -> None:
    assert has_same_origin(one, other) is expected
