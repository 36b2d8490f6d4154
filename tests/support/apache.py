"""A real Apache httpd: files, and folders that want a password, a digest, or a cookie."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from support.server_process import ServerProcess, free_port, program
from support.waiting import wait_for_many

USER, PASSWORD = "alice", "hunter 2:ü"
_MODULES = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest"),
    *("alias", "dir", "mime", "headers"),
)
_CONFIG = """
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
Mutex posixsem
User www-data
Group www-data
TypesConfig /dev/null
StartServers 1
ServerLimit 2
ThreadsPerChild 16
MaxRequestWorkers 32
LogFormat "%U%q|%>s|%{{Authorization}}i|%{{User-Agent}}i|%{{Referer}}i|%{{Cookie}}i" plain
CustomLog {folder}/access.log plain
DocumentRoot {folder}/files
<Directory {folder}/files>
    Require all granted
</Directory>
<Location /basic>
    AuthType Basic
    AuthName "members"
    AuthUserFile {folder}/basic.users
    AuthMerging Off
    Require valid-user
</Location>
<Location /digest>
    AuthType Digest
    AuthName "members"
    AuthUserFile {folder}/digest.users
    Require valid-user
</Location>
<Location /cookie>
    Require expr "%{{HTTP_COOKIE}} =~ /ticket=t-417/"
</Location>
"""


class Apache:
    """The server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = folder / "files"
        for name in ("basic", "digest", "cookie"):
            (self.files / name).mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._write_users()
        modules = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in _MODULES)
        config = folder / "apache.conf"
        config.write_text(modules + _CONFIG.format(folder=folder, port=self.port))
        command = [program("apache2"), "-DFOREGROUND", "-f", str(config)]
        self._process = ServerProcess(command, ports=[self.port], log=folder / "error.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def requests(self, path: str, *, at_least: int = 1) -> list[list[str]]:
        """Return what was asked of a path with its query, once so much was.

        A request is logged after its last byte has been sent, so a client may be done before.

        Returns:
            For each request: status, Authorization, User-Agent, Referer, Cookie; `-` for what was not sent.
        """
        return wait_for_many(lambda: self._logged(path), at_least, f"requests for {path} in the log")

    def _logged(self, path: str) -> list[list[str]]:
        lines = (self._folder / "access.log").read_text().splitlines()
        return [fields[1:] for fields in (line.split("|") for line in lines) if fields[0] == path]

    def _write_users(self) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD.encode(), capture_output=True, check=True
        ).stdout.decode()
        (self._folder / "basic.users").write_text(f"{USER}:{hashed}")
        digest = hashlib.md5(f"{USER}:members:{PASSWORD}".encode()).hexdigest()
        (self._folder / "digest.users").write_text(f"{USER}:members:{digest}\n")
