"""The options of `add` and `get`: those of the request, and those that only the command line has.

Runs as: the caller.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import click

from autodl_lib.cli.options import GroupedOption, request_parameters
from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.transfer_options import OptionGroup


def add_parameters(*, default_dir: str) -> list[click.Parameter]:
    """Make the options of a command that adds."""
    parameters = request_parameters(Add, skip=frozenset({"urls"}))
    for parameter in parameters:
        # The default is filled in later: whether --dir was given decides what the last argument is.
        if isinstance(parameter, click.Option) and parameter.name == "dir":
            parameter.default, parameter.show_default = None, False
            parameter.help = f"the folder to save to; it is made if need be [default: {default_dir}]"
    return [
        *parameters,
        GroupedOption(
            ["input_files", "-i", "--input-file"],
            group=OptionGroup.SOURCES,
            metavar="FILE",
            multiple=True,
            help="read URLs from a file, one a line; - is stdin; may be repeated",
        ),
        GroupedOption(
            ["metalinks", "-M", "--metalink"],
            group=OptionGroup.SOURCES,
            metavar="FILE",
            multiple=True,
            help="download what a Metalink file describes, and check it; - is stdin; may be repeated",
        ),
        GroupedOption(
            ["password_file", "--password-file"],
            group=OptionGroup.LOGIN,
            metavar="FILE",
            help="the password of --user is the first line of this file; - is stdin",
        ),
        GroupedOption(
            ["ipv4", "-4", "--ipv4"], group=OptionGroup.CONNECTING, is_flag=True, help="use IPv4 addresses only"
        ),
        GroupedOption(
            ["ipv6", "-6", "--ipv6"], group=OptionGroup.CONNECTING, is_flag=True, help="use IPv6 addresses only"
        ),
    ]
