"""A real OpenSSH server for sftp, and homes of users whom it knows by one key or another."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.server_process import ServerProcess, free_port, program

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
# What libssh2 1.10, the floor, knows of RSA:
HostKeyAlgorithms +ssh-rsa
PubkeyAcceptedAlgorithms +ssh-rsa
Subsystem sftp internal-sftp
"""


class Sshd:
    """The server; its files are those of `root`, as `url` shows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.port = free_port()
        self.url = f"sftp://root@127.0.0.1:{self.port}{self.root}"
        make_key(folder / "host_key", "rsa")
        (folder / "authorized_keys").touch()
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        Path("/run/sshd").mkdir(exist_ok=True)
        command = [program("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
        self._process = ServerProcess(command, ports=[self.port], log=folder / "sshd.log")

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def let_in(self, key: Path) -> None:
        """Accept a key from now on."""
        with (self._folder / "authorized_keys").open("a") as keys:
            keys.write(key.with_name(key.name + ".pub").read_text())

    def make_home(self, home: Path, *, kind: str = "rsa", is_known: bool = True) -> Path:
        """Make a home whose user may log in with a key, and who knows the server; return the key."""
        (home / ".ssh").mkdir(parents=True)
        key = home / ".ssh" / f"id_{kind}"
        make_key(key, kind)
        self.let_in(key)
        if is_known:
            host_key = (self._folder / "host_key.pub").read_text()
            (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        return key


def make_key(path: Path, kind: str, *, passphrase: str = "") -> None:
    """Make a key pair."""
    options = ["-b", "2048", "-m", "PEM"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True)
