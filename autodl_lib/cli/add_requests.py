"""Turns the command line of `add` and `get` into requests: as few as its URLs' options allow.

Runs as: the caller.  Talks to: the files that the command line names, the environment, the terminal for a password.
Invariants: all that can be found wrong here is found before the first request is sent, so nothing is queued then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import click

from autodl_lib.cli.destination import folder_and_name
from autodl_lib.cli.options import make_request
from autodl_lib.cli.url_input import check_urls, find_sources, in_requests
from autodl_lib.cli.variation import Variation
from autodl_lib.contract.codec import dumps, to_json
from autodl_lib.contract.requests.adding import MAX_COPIES_LENGTH, Add
from autodl_lib.contract.transfer_options import IpVersion

_OF_ONE_FILE = {"output": "--output", "mirrors": "--mirror", "continue_from": "--continue-from"}


def add_requests(values: Mapping[str, Any], *, default_dir: str, may_end_in_folder: bool) -> list[Add]:
    """Build the requests that a command line means.

    Raises: click.UsageError, InvalidParams, BadUrl, click.Abort.
    """
    _check_options(values)
    sources = find_sources(values, may_end_in_folder=may_end_in_folder)
    chosen = sources.folder if sources.folder is not None else values["dir"]
    save_dir, name = folder_and_name(chosen, values["output"], default=default_dir)
    fixed: tuple[str, ...] = ()
    checksums = None
    if values["checksums"]:
        from autodl_lib.cli.checksum_input import read_checksums

        checksums = read_checksums(values["checksums"])
        fixed = checksums.fixed
    changed = {"urls": (), "dir": save_dir, "output": name, "checksums": fixed, "umask": _umask()}
    changed["ip_version"] = _ip_version(values)
    variation = Variation(make_request(Add, {**values, **changed}), checksums)
    requests = list(_of_urls(sources.urls, variation))
    files_num = 0
    if sources.metalinks:
        from autodl_lib.cli.metalink_input import read_metalinks, request_for

        files = read_metalinks(sources.metalinks)
        files_num = len(files)
        requests += [request_for(file, variation) for file in files]
    _check_number(values, len(sources.urls) + files_num)
    return _with_password(requests, values)


def _of_urls(urls: Sequence[str], variation: Variation) -> Iterator[Add]:
    if not urls:
        return
    for_all = variation.for_all
    # In the order of the URLs, because the ids are printed in that of the requests.
    runs = [(for_all, urls)] if for_all is not None else groupby(urls, key=variation.of)
    for request, run in runs:
        most = MAX_COPIES_LENGTH // len(dumps(to_json(request)))
        for lot in in_requests(run, most=most):
            yield replace(request, urls=lot)


def _check_options(values: Mapping[str, Any]) -> None:
    """Refuse what is wrong whatever the URLs are."""
    context = click.get_current_context()
    readers = [*values["input_files"], values["password_file"], *values["metalinks"]]
    if readers.count("-") > 1:
        raise click.UsageError("stdin can be only one of the files", context)
    if values["if_newer"] and values["continue_from"] is not None:
        raise click.UsageError("--if-newer replaces a file and --continue-from goes on with one: give one", context)
    check_urls(values["mirrors"])
    if values["proxy"] is not None:
        from autodl_lib.contract.proxies import check_proxy

        check_proxy(values["proxy"])
    if values["username"] is not None:
        from autodl_lib.cli.login import check_username

        check_username(values["username"])
    elif values["password_file"] is not None:
        raise click.UsageError("--password-file has the password of somebody: give --user NAME too", context)


def _check_number(values: Mapping[str, Any], number: int) -> None:
    for name, option in _OF_ONE_FILE.items():
        if number > 1 and values[name]:
            raise click.UsageError(
                f"{option} is about the file of a single URL, there are several", click.get_current_context()
            )


def _ip_version(values: Mapping[str, Any]) -> IpVersion:
    asked = {values["ip_version"]} - {IpVersion.ANY}
    asked |= {IpVersion.IPV4} if values["ipv4"] else set()
    asked |= {IpVersion.IPV6} if values["ipv6"] else set()
    if len(asked) > 1:
        raise click.UsageError("-4 and -6 exclude each other", click.get_current_context())
    return asked.pop() if asked else IpVersion.ANY


def _umask() -> int | None:
    """Return the caller's umask, None for the usual one; it can only be read by setting it."""
    os.umask(found := os.umask(0o077))
    return None if found == 0o022 else found


def _with_password(requests: list[Add], values: Mapping[str, Any]) -> list[Add]:
    """Fill in the password; last of all, so that nobody is asked for it in vain."""
    if values["username"] is None:
        return requests
    from autodl_lib.cli.login import ask_password, read_password

    if values["password_file"] is not None:
        password = read_password(values["password_file"])
    elif values["netrc"] or _only_keys(requests, values):
        return requests
    else:
        password = ask_password(values["username"])
    return [replace(request, password=password) for request in requests]


def _only_keys(requests: Sequence[Add], values: Mapping[str, Any]) -> bool:
    """Tell whether a key takes the place of the password: SSH's does, that of a TLS certificate does not."""
    urls = [url for request in requests for url in (*request.urls, *request.mirrors)]
    return values["client_key"] is not None and all(url[:7].lower() == "sftp://" for url in urls)
