"""How one task wants its file fetched and checked, declared once: a part of `add`, of the queue and of an assignment.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: a default means "nothing special", and is not stored; what is `secret` is forgotten when the task finishes.
"""

from __future__ import annotations

from enum import StrEnum

from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass

MAX_MIRRORS = 32
MAX_PIECES = 50_000
MAX_CONNECTIONS = 256


class OptionGroup(StrEnum):
    """What an option is about: the headings of `--help`, in order."""

    SAVING = "Where and how to save"
    QUEUEING = "When and how fast"
    CHECKING = "Checking what arrives"
    SOURCES = "Where from"
    ASKING = "What the server is told"
    LOGIN = "Logging in"
    CONNECTING = "Connecting"


class IpVersion(StrEnum):
    """Which addresses of a host are used."""

    ANY = "any"
    IPV4 = "4"
    IPV6 = "6"


class HttpVersion(StrEnum):
    """The newest HTTP that is spoken; `auto`: 2 over TLS where the server offers it, else 1.1."""

    AUTO = "auto"
    HTTP_1_1 = "1.1"
    HTTP_2 = "2"
    HTTP_3 = "3"


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceHashes:
    """Checksums of equally long pieces of the file; the last one may be shorter. Source: RFC 5854, section 4.2.16."""

    algorithm: str = param("a name of hashlib, such as sha256", max_length=32)
    length_bytes: int = param("the length of a piece", minimum=1024)
    digests: tuple[str, ...] = param("in hexadecimal, in order", min_items=1, max_items=MAX_PIECES, max_length=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """What may be asked of a transfer beyond its URL and its name. Paths are the owner's, absolute or with `~`."""

    mirrors: tuple[str, ...] = param(
        "another URL of the same file, used beside the first one or in its place; may be repeated",
        default=(),
        cli=("--mirror",),
        metavar="URL",
        max_length=65536,
        max_items=MAX_MIRRORS,
        group=OptionGroup.SOURCES,
    )
    connections: int | None = param(
        "connections for this file, at most; more than one is used only where it helps",
        default=None,
        cli=("-x", "--connections"),
        metavar="N",
        minimum=1,
        maximum=MAX_CONNECTIONS,
        group=OptionGroup.QUEUEING,
    )
    checksums: tuple[str, ...] = param(
        "what the file must hash to: ALGO=HEX, or the URL or file of a list such as SHA256SUMS; may be repeated",
        default=(),
        cli=("--checksum",),
        metavar="ALGO=HEX|URL|FILE",
        max_items=16,
        group=OptionGroup.CHECKING,
    )
    size_bytes: int | None = param("the size that the file must have", default=None, minimum=0, unit="B")
    pieces: PieceHashes | None = param("checksums of pieces, as a Metalink file has them", default=None)
    username: str | None = param(
        "the name to log in with; the password is asked for, unless --password-file gives it",
        default=None,
        cli=("--user",),
        metavar="NAME",
        max_length=1024,
        secret=True,
        group=OptionGroup.LOGIN,
    )
    password: str | None = param("the password to log in with", default=None, max_length=4096, secret=True)
    netrc: bool = param(
        "log in with what ~/.netrc says of the host",
        default=False,
        cli=("--netrc",),
        group=OptionGroup.LOGIN,
    )
    referer: str | None = param(
        "the page that is said to have the link",
        default=None,
        cli=("--referer",),
        metavar="URL",
        max_length=8192,
        group=OptionGroup.ASKING,
    )
    user_agent: str | None = param(
        "what the server is told this program is",
        default=None,
        cli=("--user-agent",),
        metavar="TEXT",
        max_length=512,
        group=OptionGroup.ASKING,
    )
    cookie_file: str | None = param(
        "send the cookies of this file, in the format of Netscape and curl",
        default=None,
        cli=("--cookies",),
        metavar="FILE",
        is_path=True,
        group=OptionGroup.ASKING,
    )
    proxy: str | None = param(
        "http://, https://, socks4://, socks4a://, socks5:// or socks5h://HOST:PORT; an empty word is none",
        default=None,
        cli=("--proxy",),
        metavar="URL",
        secret=True,
        group=OptionGroup.CONNECTING,
    )
    no_proxy: str | None = param(
        "hosts that are reached without the proxy, with commas between; * is all",
        default=None,
        cli=("--no-proxy",),
        metavar="HOSTS",
        max_length=16384,
        group=OptionGroup.CONNECTING,
    )
    ca_file: str | None = param(
        "trust the certificates of this file, and no others",
        default=None,
        cli=("--ca-file",),
        metavar="FILE",
        is_path=True,
        group=OptionGroup.CONNECTING,
    )
    client_cert: str | None = param(
        "show the server this certificate (PEM)",
        default=None,
        cli=("--cert",),
        metavar="FILE",
        is_path=True,
        group=OptionGroup.LOGIN,
    )
    client_key: str | None = param(
        "the private key of --cert, or of SSH for sftp",
        default=None,
        cli=("--key",),
        metavar="FILE",
        is_path=True,
        group=OptionGroup.LOGIN,
    )
    insecure: bool = param(
        "do not verify who the server is (TLS certificate, SSH host key): anybody on the way can change the file",
        default=False,
        cli=("--insecure",),
        group=OptionGroup.CONNECTING,
    )
    ip_version: IpVersion = param(
        "use addresses of this kind only",
        default=IpVersion.ANY,
        cli=("--ip-version",),
        group=OptionGroup.CONNECTING,
    )
    interface: str | None = param(
        "leave by this network interface or local address",
        default=None,
        cli=("--interface",),
        metavar="NAME",
        max_length=256,
        group=OptionGroup.CONNECTING,
    )
    http_version: HttpVersion = param(
        "speak no newer HTTP than this",
        default=HttpVersion.AUTO,
        cli=("--http-version",),
        group=OptionGroup.ASKING,
    )
    remote_time: bool = param(
        "give the file the time that the server says",
        default=False,
        cli=("-R", "--remote-time"),
        group=OptionGroup.SAVING,
    )
    if_newer: bool = param(
        "fetch only what is newer than the file that is there, and replace that",
        default=False,
        cli=("--if-newer",),
        group=OptionGroup.SAVING,
    )
    continue_from: str | None = param(
        "go on from a part that curl, wget or aria2 left, once the server is seen to have the same bytes at its end",
        default=None,
        cli=("--continue-from",),
        metavar="FILE",
        is_path=True,
        group=OptionGroup.SAVING,
    )
    umask: int | None = param(
        "the caller's umask: what others may not do with the file and with folders that are made for it; null is 022",
        default=None,
        minimum=0,
        maximum=0o777,
    )


NO_OPTIONS = TransferOptions()
