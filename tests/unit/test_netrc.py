"""What ~/.netrc says of a host."""

from __future__ import annotations

import pytest

from autodl_lib.worker.network.netrc import Login, find_login

FILE = """
# my passwords
machine one.example login alice password secret
machine TWO.example
    login bob
    account ignored
    password "with \\"quotes\\" and spaces"
machine one.example login eve password other
macdef init
machine three.example login mallory password stolen

machine four.example login carol
machine five.example password lonely
machine six.example login # password #hash
"""


@pytest.mark.parametrize(
    ("host", "username", "expected"),
    [
        ("one.example", None, Login(username="alice", password="secret")),
        ("ONE.EXAMPLE", None, Login(username="alice", password="secret")),
        ("one.example", "eve", Login(username="eve", password="other")),
        ("one.example", "nobody", None),
        ("two.example", None, Login(username="bob", password='with "quotes" and spaces')),
        ("three.example", None, None),
        ("four.example", None, None),
        ("five.example", None, None),
        ("six.example", None, Login(username="#", password="#hash")),
        ("seven.example", None, None),
        ("ne.example", None, None),
        ("", None, None),
    ],
)
def test_a_host_has_the_first_complete_entry(host: str, username: str | None, expected: Login | None) -> None:
    assert find_login(FILE, host, username) == expected


def test_the_default_is_for_every_host_that_comes_too_late_for_another() -> None:
    text = "machine a.example login one password 1\ndefault login any password 2\n"
    assert find_login(text, "a.example", None) == Login(username="one", password="1")
    assert find_login(text, "b.example", None) == Login(username="any", password="2")


@pytest.mark.parametrize("text", ["", "machine", "login x password y", "machine a login", '"', "macdef", "default"])
def test_a_file_that_makes_no_sense_has_no_logins(text: str) -> None:
    assert find_login(text, "a", None) is None
