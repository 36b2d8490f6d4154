"""A real Caddy: files over HTTP/1.1, HTTP/2 and HTTP/3 (QUIC), and which of them each request spoke."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.certificates import Certificates
from support.server_process import ServerProcess, free_port, program
from support.waiting import wait_until

_CONFIG = """
{{
    admin off
    auto_https off
    servers {{
        protocols h1 h2 h3
    }}
}}
https://127.0.0.1:{port} {{
    bind 127.0.0.1
    tls {pair.cert} {pair.key}
    root * {folder}/files
    file_server
    log {{
        output file {folder}/access.log {{
            roll_disabled
        }}
        format json
    }}
}}
"""


class Caddy:
    """The server."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        self.ca_file = str(certificates.ca_file)
        self._log = folder / "access.log"
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        config = folder / "Caddyfile"
        config.write_text(_CONFIG.format(folder=folder, port=port, pair=certificates.good))
        command = ["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
        command += [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]
        self._process = ServerProcess(command, ports=[port], log=folder / "output.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def protocols(self, name: str) -> list[str]:
        """Return what the requests for a file spoke, and wait until there is one."""

        def spoken() -> list[str]:
            lines = self._log.read_text().splitlines() if os.path.exists(self._log) else []
            entries = [json.loads(line)["request"] for line in lines]
            return [entry["proto"] for entry in entries if entry["uri"] == f"/{name}"]

        return wait_until(spoken, f"a request for {name} in the log")
