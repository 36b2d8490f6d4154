"""A real nginx that speaks TLS and HTTP/2: a port for each certificate of `Certificates`, good or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.certificates import Certificates
from support.server_process import ServerProcess, free_port, program
from support.waiting import wait_until

_CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    log_format protocol '$request_uri|$status|$server_protocol|$ssl_client_verify';
    access_log {folder}/access.log protocol;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    root {folder}/files;
    ssl_session_cache none;
    {servers}
}}
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl http2;
        {more_listen}
        ssl_certificate {cert};
        ssl_certificate_key {key};
        {more}
    }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFetch:
    """A line of the access log."""

    uri: str
    status: int
    protocol: str
    client_verified: str


class TlsNginx:
    """The server; `url` is of the good certificate, `urls` has one for each kind by its name."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._folder = folder
        self.ca_file = str(certificates.ca_file)
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        kinds = {
            "good": certificates.good,
            "expired": certificates.expired,
            "wrong_host": certificates.wrong_host,
            "self_signed": certificates.self_signed,
            "asks_client": certificates.good,
        }
        ports = {kind: free_port() for kind in kinds}
        self.urls = {kind: f"https://127.0.0.1:{port}" for kind, port in ports.items()}
        self.url = self.urls["good"]
        self.port = ports["good"]
        servers = "".join(
            _SERVER.format(
                port=ports[kind],
                cert=pair.cert,
                key=pair.key,
                more_listen=f"listen [::1]:{ports[kind]} ssl http2;" if kind == "good" else "",
                more=f"ssl_client_certificate {certificates.ca_file}; ssl_verify_client on;"
                if kind == "asks_client"
                else "",
            )
            for kind, pair in kinds.items()
        )
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, servers=servers))
        command = [program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
        self._process = ServerProcess(command, ports=list(ports.values()), log=folder / "output.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def fetch_of(self, name: str) -> TlsFetch:
        """Return the last request for a file, waiting for the log to have it."""
        return wait_until(lambda: self._find(name), f"{name} is in the log")

    def _find(self, name: str) -> TlsFetch | None:
        for line in reversed((self._folder / "access.log").read_text().splitlines()):
            uri, status, protocol, verified = line.split("|")
            if uri.endswith("/" + name):
                return TlsFetch(uri=uri, status=int(status), protocol=protocol, client_verified=verified)
        return None
