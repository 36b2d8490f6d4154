"""Servers of pyftpdlib in a process of their own: `ftp_child.py ROOT LOGINS CERT USER PASSWORD PORT PORT PORT PORT`.

The ports are for plain FTP, TLS on request (and required), TLS from the start, and plain FTP that agrees to go on in
the middle of a file, and does not. Each login becomes a line of LOGINS.
"""

from __future__ import annotations

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

ROOT, LOGINS, CERT, USER, PASSWORD = sys.argv[1:6]


def keep(username: str, *, is_tls: bool) -> None:
    """Note a login."""
    with open(LOGINS, "a", encoding="utf-8") as file:
        file.write(f"{username} {is_tls}\n")


class Plain(FTPHandler):
    """FTP."""

    auth_failed_timeout = 0

    def on_login(self, username: str) -> None:
        """See FTPHandler."""
        keep(username, is_tls=False)


class Forgetful(Plain):
    """FTP that always begins at the first byte."""

    def ftp_REST(self, line: str) -> None:  # noqa: N802
        """Say that it will be as asked."""
        self.respond(f"350 Restarting at position {line}.")


class Explicit(TLS_FTPHandler):
    """FTP that is refused until TLS was asked for."""

    auth_failed_timeout = 0
    certfile = CERT
    tls_control_required = True
    tls_data_required = True

    def on_login(self, username: str) -> None:
        """See FTPHandler."""
        keep(username, is_tls=True)


class Implicit(Explicit):
    """FTP inside of TLS."""

    def handle(self) -> None:
        """Speak TLS before the first word."""
        self.secure_connection(self.get_ssl_context() if hasattr(self, "get_ssl_context") else self.ssl_context)

    def handle_ssl_established(self) -> None:
        """Say the first word."""
        TLS_FTPHandler.handle(self)


def main() -> None:
    """Serve until killed."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, ROOT)
    authorizer.add_anonymous(ROOT)
    for handler, port in zip((Plain, Explicit, Implicit, Forgetful), sys.argv[6:10], strict=True):
        handler.authorizer = authorizer
        server = FTPServer(("127.0.0.1", int(port)), handler)
    server.serve_forever()


main()
