"""Real FTP servers: vsftpd (plain, TLS on request, TLS from the start) and pyftpdlib (the same, with a login)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from support.certificates import Certificates
from support.server_process import ServerProcess, free_port, program

USER, PASSWORD = "dave", "s3 cret/@"
_VSFTPD = """
listen=YES
listen_ipv6=NO
background=NO
listen_address=127.0.0.1
listen_port={port}
anonymous_enable=YES
anon_root={root}
local_enable=NO
xferlog_enable=NO
seccomp_sandbox=NO
secure_chroot_dir={empty}
"""
_VSFTPD_TLS = """
ssl_enable=YES
allow_anon_ssl=YES
force_anon_data_ssl=YES
force_anon_logins_ssl=YES
rsa_cert_file={cert}
rsa_private_key_file={key}
require_ssl_reuse=NO
implicit_ssl={implicit}
"""


class Vsftpd:
    """An anonymous FTP server; with certificates it takes TLS only, from the start when `implicit`.

    `denied`: commands that it does not obey.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates | None = None,
        *,
        implicit: bool = False,
        denied: Sequence[str] = (),
    ) -> None:
        self.root, empty, config = folder / "root", folder / "empty", folder / "vsftpd.conf"
        self.root.mkdir(parents=True)
        empty.mkdir()
        port = free_port()
        self.url = f"{'ftps' if implicit else 'ftp'}://127.0.0.1:{port}"
        text = _VSFTPD.format(port=port, root=self.root, empty=empty)
        if certificates is not None:
            pair = certificates.good
            text += _VSFTPD_TLS.format(cert=pair.cert, key=pair.key, implicit="YES" if implicit else "NO")
        if denied:
            text += f"cmds_denied={','.join(denied)}\n"
        config.write_text(text)
        config.chmod(0o600)
        self._process = ServerProcess([program("vsftpd"), str(config)], ports=[port], log=folder / "vsftpd.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()


class PyFtp:
    """Servers of pyftpdlib, one process: `plain`, `explicit`, `implicit`, `forgetful` are their URLs; all know USER."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._logins = folder / "logins"
        self._logins.touch()
        ports = [free_port() for _ in range(4)]
        self.plain, self.explicit = (f"ftp://127.0.0.1:{port}" for port in ports[:2])
        self.implicit = f"ftps://127.0.0.1:{ports[2]}"
        self.forgetful = f"ftp://127.0.0.1:{ports[3]}"
        child = str(Path(__file__).with_name("ftp_child.py"))
        arguments = [str(self.root), str(self._logins), str(certificates.good.both), USER, PASSWORD, *map(str, ports)]
        # pyftpdlib needs a module that Python is about to drop, and says so.
        command = [sys.executable, "-W", "ignore", child, *arguments]
        self._process = ServerProcess(command, ports=ports, log=folder / "ftp.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def logins(self) -> list[tuple[str, bool]]:
        """Return who has logged in, and whether inside of TLS."""
        lines = [line.split() for line in self._logins.read_text().splitlines()]
        return [(name, is_tls == "True") for name, is_tls in lines]
