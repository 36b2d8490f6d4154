"""A real nginx on a free port of the loopback: files, as slowly as asked, and a log of what was fetched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.server_process import answers, free_port
from support.waiting import wait_for_many, wait_until

_CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 2048; }}
http {{
    log_format plain '$request_uri|$status|$body_bytes_sent|$http_range';
    access_log {folder}/access.log plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on;
    sendfile_max_chunk 16k;
    output_buffers 1 16k;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {folder}/files;
        location / {{ }}
        location ~ ^/rate/(?<rate>[0-9]+k?)/(?<name>.+)$ {{ limit_rate $rate; alias {folder}/files/$name; }}
        location ~ ^/status/(?<code>403)$ {{ return 403; }}
        location ~ ^/status/(?<code>500)$ {{ return 500; }}
        location ~ ^/status/(?<code>503)$ {{ return 503; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A file of the server."""

    name: str
    url: str
    slow_url: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The digest that a copy must have."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Fetch:
    """A line of the access log."""

    uri: str
    status: int
    body_bytes: int
    asked_range: str | None


class Nginx:
    """The server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "files").mkdir(parents=True)
        self.port = free_port()
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, port=self.port))
        command = ["/usr/sbin/nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._answers, "nginx listens")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    @property
    def base(self) -> str:
        """The URL of its root, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def file(self, name: str, size_bytes: int, *, rate: str = "256k") -> Served:
        """Make a file whose bytes follow from its name; `rate` a second is the pace of `slow_url`."""
        data = random.Random(name).randbytes(size_bytes)
        path = self._folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(data)
        fresh.rename(path)
        return Served(name, f"{self.base}/{name}", f"{self.base}/rate/{rate}/{name}", data)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / "files" / name)

    def fetches(self, name: str, *, at_least: int = 1) -> list[Fetch]:
        """Return what has been asked of a file, slow or not, in order, once so many have ended.

        A request is logged after its last byte has been sent, so a client may be done before.
        """
        return wait_for_many(lambda: self._logged(name), at_least, f"requests for {name} in the log")

    def _logged(self, name: str) -> list[Fetch]:
        found = []
        for line in (self._folder / "access.log").read_text().splitlines():
            uri, status, size, asked = line.split("|")
            if uri.endswith("/" + name):
                found.append(Fetch(uri, int(status), int(size), None if asked == "-" else asked))
        return found

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"nginx does not start: {(self._folder / 'error.log').read_text()}")
        return answers(self.port)
