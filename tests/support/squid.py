"""A real squid: one port for all, one for those who log in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.server_process import ServerProcess, free_port, program
from support.waiting import wait_for_many

USER, PASSWORD = "carol", "pass word"
_CONFIG = """
http_port 127.0.0.1:{open_port}
http_port 127.0.0.1:{login_port}
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache_store_log none
cache deny all
strip_query_terms off
coredump_dir {folder}
shutdown_lifetime 0 seconds
visible_hostname localhost
pinger_enable off
netdb_filename none
auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/users
auth_param basic children 1 startup=1
auth_param basic realm proxy
acl members proxy_auth REQUIRED
acl with_login localport {login_port}
acl refused port 9
http_access deny refused
http_access allow with_login members
http_access deny with_login
http_access allow all
"""


class Squid:
    """The proxy; `place` is its HOST:PORT."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        open_port, login_port = free_port(), free_port()
        self.place = f"127.0.0.1:{open_port}"
        self.place_with_login = f"127.0.0.1:{login_port}"
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD.encode(), capture_output=True, check=True
        ).stdout.decode()
        (folder / "users").write_text(f"{USER}:{hashed}")
        folder.chmod(0o777)  # squid becomes the user `proxy` before it opens its logs
        config = folder / "squid.conf"
        config.write_text(_CONFIG.format(folder=folder, open_port=open_port, login_port=login_port))
        command = [program("squid"), "-N", "-f", str(config)]
        self._process = ServerProcess(command, ports=[open_port, login_port], log=folder / "output.log")

    def stop(self) -> None:
        """End it; asked nicely, it takes two seconds."""
        self._process.kill()

    def request(self, url: str) -> str:
        """Return the line of the log for a URL, once it is there: a client may be done before."""
        return wait_for_many(lambda: self.requests(url), 1, f"request for {url} in the log")[0]

    def requests(self, url: str) -> list[str]:
        """Return the lines that the log has for a URL."""
        path = self._folder / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if f" {url} " in line]
