"""URLs: which are taken, whose host they name, and that no secret of theirs is shown."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.errors import BadUrl
from autodl_lib.contract.urls import check_url, redact_url


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://host/x", "host:80"),
        ("https://host", "host:443"),
        ("ftp://host/x", "host:21"),
        ("ftps://host/x", "host:990"),
        ("sftp://user@host/x", "host:22"),
        ("HTTP://HOST:8080/x", "host:8080"),
        ("http://host:65535/x", "host:65535"),
        ("http://[::1]:81/x", "::1:81"),
        ("http://user:pa%20ss@host/x", "host:80"),
    ],
)
def test_the_host_and_port_that_a_url_asks(url: str, host: str) -> None:
    assert check_url(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "", "host/x", "/etc/passwd", "http:", "http://", "http:///x", "http:host", "//host/x", "file:///x", "data:,x",
        "javascript://host/%0aalert(1)", "http://host:port/", "http://host:70000/", "https://host:65536",
        "http://[::1/", "http://ho st/",
        "http://host/\n", "http://host/\x00", "http://host/\x7f", "scp://host/x", "http://" + "x" * 70000,
    ],
)  # fmt: skip
def test_what_can_not_be_downloaded_is_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        check_url(url)


@given(st.text(max_size=100))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, "http://" + text, "http://host/" + text):
        try:
            check_url(url)
        except BadUrl as error:
            assert len(str(error)) < 2000  # noqa: PT017


secrets = st.text("abcdefXYZ0123456789!$%^&*:@", min_size=6, max_size=20)


@given(scheme=st.sampled_from(["http", "HTTPS", "ftp", "sftp"]), secret=secrets)
def test_a_password_is_never_shown(scheme: str, secret: str) -> None:
    url = f"{scheme}://alice:{secret}@host/file"
    assert secret not in redact_url(url)
    assert redact_url(url) == f"{scheme}://***@host/file"


@given(secret=st.text("abcdefXYZ0123456789!$%^&*", min_size=8, max_size=20))
def test_a_refusal_does_not_show_the_password_either(secret: str) -> None:
    for url in (f"gopher://u:{secret}@host/x", f"http://u:{secret}@host/a b", f"http://u:{secret}@:80/"):
        with pytest.raises(BadUrl) as refused:
            check_url(url)
        assert secret not in str(refused.value)


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert redact_url("http://host/a@b") == "http://host/a@b"
    assert redact_url("http://host/?q=x@y") == "http://host/?q=x@y"


@given(
    st.sampled_from(["http", "https", "HTTP"]),
    st.from_regex(r"[a-zA-Z0-9._\-@\[\]:]{1,12}", fullmatch=True),
    st.from_regex(r"(:[0-9]{0,6})?([/?#][!-~]{0,9})?", fullmatch=True),
)
def test_the_short_way_to_the_host_is_right(scheme: str, host: str, rest: str) -> None:
    url = f"{scheme}://{host}{rest}"
    try:
        parts = urlsplit(url)
        expected = (
            f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}" if parts.hostname else None
        )
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(BadUrl):
            check_url(url)
    else:
        assert check_url(url) == expected
