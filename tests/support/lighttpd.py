"""A real lighttpd: files."""

from __future__ import annotations

from pathlib import Path

from support.server_process import ServerProcess, free_port, program

_CONFIG = """
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{folder}/files"
server.errorlog = "{folder}/error.log"
# Else it sends what a file was a second ago.
server.stat-cache-engine = "disable"
mimetype.assign = ( "" => "application/octet-stream" )
"""


class Lighttpd:
    """The server."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "lighttpd.conf"
        config.write_text(_CONFIG.format(folder=folder, port=port))
        command = [program("lighttpd"), "-D", "-f", str(config)]
        self._process = ServerProcess(command, ports=[port], log=folder / "output.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()
