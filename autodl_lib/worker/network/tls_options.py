"""Whom a transfer trusts, and how it shows who it is: certificates, SSH keys, `--insecure`.

Runs as: the task's owner.  Talks to: the owner's file system, reading only.
Invariants: TLS and SSH peers are verified unless `insecure` was asked for, a proxy's certificate always; `ca_file`
replaces what the machine trusts; an SSH agent is never asked.
Known limits: a client certificate is shown to every server of a redirect chain that asks for one (its key stays here).
One SSH key is offered: --key, else the first of id_ed25519, id_ecdsa, id_rsa in ~/.ssh that needs no passphrase.
"""

from __future__ import annotations

import base64
import binascii
import os

import pycurl

from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.worker.network.owner_files import read_text, readable_file
from autodl_lib.worker.network.verdicts import TaskFailed

Settings = list[tuple[int, object]]
"""Options of an easy handle with their values; None takes one back."""

_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_SSH_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_OPENSSH_BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----"
_OPENSSH_UNENCRYPTED = b"openssh-key-v1\0\0\0\0\4none"


def usual_trust() -> Settings:
    """Return what every handle begins with: the machine's CA certificates, verification, the owner's known hosts."""
    settings: Settings = [
        (pycurl.SSL_VERIFYPEER, 1),
        (pycurl.SSL_VERIFYHOST, 2),
        (pycurl.SSH_KNOWNHOSTS, os.fsencode(os.path.expanduser("~/.ssh/known_hosts"))),
    ]
    ca_file = _machine_ca_file()
    if ca_file is not None:
        settings += [(pycurl.CAINFO, os.fsencode(ca_file)), (pycurl.PROXY_CAINFO, os.fsencode(ca_file))]
    ca_folder = os.environ.get("SSL_CERT_DIR")
    if ca_folder:
        settings += [(pycurl.CAPATH, os.fsencode(ca_folder)), (pycurl.PROXY_CAPATH, os.fsencode(ca_folder))]
    return settings


def tls_settings(options: TransferOptions) -> Settings:
    """Return what a task's options ask of TLS, and of SSH where that means the same.

    Raises: TaskFailed, when a file can't be read.
    """
    settings: Settings = []
    if options.ca_file is not None:
        ca_file = readable_file(options.ca_file, "the CA certificates")
        settings += [(pycurl.CAINFO, ca_file), (pycurl.PROXY_CAINFO, ca_file)]
        settings += [(pycurl.CAPATH, None), (pycurl.PROXY_CAPATH, None)]
    if options.client_cert is not None:
        settings.append((pycurl.SSLCERT, readable_file(options.client_cert, "the client certificate")))
        if options.client_key is not None:
            settings.append((pycurl.SSLKEY, readable_file(options.client_key, "the private key")))
    if options.insecure:
        settings += [(pycurl.SSL_VERIFYPEER, 0), (pycurl.SSL_VERIFYHOST, 0), (pycurl.SSH_KEYFUNCTION, _accept_any_key)]
    return settings


def ftp_tls_settings(options: TransferOptions) -> Settings:
    """Return whether an ftp:// transfer uses TLS.

    It is plain, as everywhere: most FTP servers that offer TLS have a certificate that nobody can verify, and to try
    TLS by default would turn downloads that work into failures, without keeping out an attacker, who answers that
    there is none. Who says which certificates count wants TLS, though, and gets it or no file.
    """
    if options.ca_file is not None or options.client_cert is not None:
        return [(pycurl.USE_SSL, pycurl.USESSL_TRY if options.insecure else pycurl.USESSL_ALL)]
    return [(pycurl.USE_SSL, pycurl.USESSL_TRY)] if options.insecure else []


def ssh_settings(options: TransferOptions) -> Settings:
    """Return how an sftp:// transfer logs in.

    Raises: TaskFailed, when the key that was asked for can't be read.
    """
    if options.client_key is not None:
        key: bytes | None = readable_file(options.client_key, "the private key")
    else:
        key = next((os.fsencode(os.path.expanduser(path)) for path in _SSH_KEYS if _is_usable_key(path)), None)
    ways = pycurl.SSH_AUTH_PASSWORD | pycurl.SSH_AUTH_KEYBOARD
    if key is None:
        return [(pycurl.SSH_AUTH_TYPES, ways)]
    return [(pycurl.SSH_AUTH_TYPES, ways | pycurl.SSH_AUTH_PUBLICKEY), (pycurl.SSH_PRIVATE_KEYFILE, key)]


def _is_usable_key(path: str) -> bool:
    """Tell whether a key file can be read, and without a passphrase."""
    try:
        text = read_text(path, "the private key")
    except TaskFailed:
        return False
    if not text.startswith(_OPENSSH_BEGIN):
        return "PRIVATE KEY-----" in text and "ENCRYPTED" not in text
    try:
        head = base64.b64decode("".join(text[len(_OPENSSH_BEGIN) :].split())[:64])
    except (binascii.Error, ValueError):
        return False
    return head.startswith(_OPENSSH_UNENCRYPTED)


def _accept_any_key(_known: object, _found: object, _match: int) -> int:
    return pycurl.KHSTAT_FINE


def _machine_ca_file() -> str | None:
    for variable in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        named = os.environ.get(variable)
        if named:
            return named
    return next((path for path in _CA_FILES if os.access(path, os.R_OK)), None)
