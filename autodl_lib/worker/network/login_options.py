"""Who a transfer says it is to the server: user name and password, ~/.netrc, cookies.

Runs as: the task's owner.  Talks to: the owner's file system, reading only.
Invariants: a login is for the host, port and protocol of the URL; after a redirect to any other, libcurl sends none
(UNRESTRICTED_AUTH is off); a password goes out unasked only inside of TLS, or where the URL itself has it. The cookie
file is never written.
Known limits: over plain HTTP a server that does not ask gets no password, and Digest is used where it is offered;
over TLS a server that knows Digest only is not logged in to.
"""

from __future__ import annotations

import os
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pycurl

from autodl_lib.contract.errors import BadUrl
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.urls import check_url
from autodl_lib.worker.network.netrc import find_login
from autodl_lib.worker.network.owner_files import read_text, readable_file
from autodl_lib.worker.network.tls_options import Settings
from autodl_lib.worker.network.verdicts import TaskFailed

NETRC = "~/.netrc"
_SECRET_HEADERS = frozenset({"authorization", "cookie"})


def login_settings(options: TransferOptions, url: str) -> Settings:
    """Return how a task logs in to the server of a URL.

    Raises: TaskFailed, when ~/.netrc or the cookies can't be read.
    """
    settings: Settings = []
    if options.cookie_file is not None:
        settings.append((pycurl.COOKIEFILE, readable_file(options.cookie_file, "the cookies")))
    username, password = options.username, options.password
    if options.netrc and password is None:
        username, password = _from_netrc(username, url)
    if username is not None:
        settings += [(pycurl.USERNAME, username.encode()), (pycurl.PASSWORD, (password or "").encode())]
        if url[:5].lower() == "http:":
            settings.append((pycurl.HTTPAUTH, pycurl.HTTPAUTH_BASIC | pycurl.HTTPAUTH_DIGEST))
    return settings


def of_mirror(options: TransferOptions, headers: tuple[str, ...]) -> tuple[TransferOptions, tuple[str, ...]]:
    """Return what a mirror on another host, port or protocol than the URL's may be asked with: not with its login."""
    kept = tuple([line for line in headers if line.partition(":")[0].strip().lower() not in _SECRET_HEADERS])
    if options.username is None and options.password is None:
        return options, kept
    return replace(options, username=None, password=None), kept


def has_same_origin(url: str, other: str) -> bool:
    """Tell whether two URLs name the same host, port and protocol, so that a login for one is for both."""
    try:
        return check_url(url) == check_url(other) and url[:6].lower() == other[:6].lower()
    except BadUrl:
        return False


def usual_ssh_login(url: str) -> Settings:
    """Return the owner's own name for an sftp URL that has none, as ssh does."""
    name = os.environ.get("LOGNAME") or os.environ.get("USER")
    if not name or "@" in url.partition("://")[2].partition("/")[0]:
        return []
    return [(pycurl.USERNAME, name.encode())]


def _from_netrc(username: str | None, url: str) -> tuple[str | None, str | None]:
    try:
        parts = urlsplit(url)
        host, in_url, password_in_url = parts.hostname or "", parts.username, parts.password
    except ValueError:
        raise TaskFailed(FailureCode.BAD_URL, "the URL is malformed") from None
    if password_in_url is not None:
        return username, None
    wanted = username if username is not None else unquote(in_url) if in_url is not None else None
    login = find_login(read_text(NETRC, "the passwords in"), host, wanted)
    return (login.username, login.password) if login is not None else (username, None)
