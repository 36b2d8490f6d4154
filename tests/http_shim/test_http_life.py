"""The server's life: how it starts, where it listens, what becomes of it when the daemon goes, and its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.accounts import User
from support.daemon import AUTODL, REPO, Daemon, MakeDaemon
from support.http_front import HttpFront, MakeFront, read_all
from support.waiting import PATIENCE_S, wait_until


def run_as(user: User, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command line that is to end by itself."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(user.home), "AUTODL_SOCKET": "/nowhere.sock"}
    return subprocess.run(
        [*AUTODL, "http", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
        timeout=PATIENCE_S,
    )


def ask_unix(front: HttpFront, path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(path))
        client.sendall(front.head("GET /stats HTTP/1.1", "Connection: close"))
        return read_all(client)


def test_it_does_not_run_as_root() -> None:
    done = subprocess.run([*AUTODL, "http"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (5, "")
    assert re.fullmatch(r"autodl: `autodl http` does not run as root.*\n", done.stderr)


def test_it_does_not_run_with_a_capability(web: User) -> None:
    become = ["setpriv", f"--reuid={web.uid}", f"--regid={web.gid}", "--clear-groups"]
    become += ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    done = subprocess.run([*become, *AUTODL, "http"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, "does not run with capabilities" in done.stderr) == (5, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--listen", "0.0.0.0:0"], 2, "no TLS"),
        (["--listen", "[::]:0"], 2, "no TLS"),
        (["--listen", "192.0.2.1:0"], 2, "no TLS"),
        (["--listen", "example.org:80"], 2, "ADDRESS:PORT"),
        (["--listen", "127.0.0.1"], 2, "ADDRESS:PORT"),
        (["--listen", "127.0.0.1:65536"], 2, "ADDRESS:PORT"),
        (["--listen", "999.0.0.1:1"], 2, "no IP address"),
        (["--listen", "unix:"], 2, "path of a socket"),
        (["--listen", "unix:/no/such/folder/s"], 2, "can't make the socket"),
        (["--listen", "unix:/etc/passwd"], 2, "is no socket"),
        (["--listen", "127.0.0.1:0", "--allow-origin", "*"], 2, "an origin is"),
        (["--listen", "127.0.0.1:0", "--allow-origin", "null"], 2, "an origin is"),
        (["--listen", "127.0.0.1:0", "--host-name", "a:80"], 2, "without a port"),
        (["--listen", "127.0.0.1:0", "--dir", "here"], 2, "absolute path"),
        (["--token-file", "/no/such/folder/token"], 2, "can't use the token's file"),
        (["--token-file", "/dev/null"], 2, "no regular file"),
        (["--token-file", "/etc/passwd"], 5, "open to other users"),
        (["--port", "80"], 2, "--port"),
        (["--socket", "/" + "x" * 200], 2, "at most 107 bytes"),
        (["more"], 2, "more"),
    ],
)
def test_what_can_not_be_done_is_said_at_the_start(web: User, arguments: list[str], status: int, said: str) -> None:
    done = run_as(web, *arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr.splitlines()[0 if "INFO" not in done.stderr else -1]
    assert "Traceback" not in done.stderr


def test_a_token_of_too_few_letters_is_none(web: User) -> None:
    path = web.home / "short"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    os.chown(path, web.uid, web.gid)
    done = run_as(web, "--token-file", str(path))
    assert (done.returncode, "no token of 32" in done.stderr) == (2, True)
    assert "hunter2" not in done.stderr


def test_an_address_that_is_taken_is_said(web: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run_as(web, "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_without_the_library_it_says_what_to_install(web: User) -> None:
    code = "import sys, autodl\nsys.modules['h11'] = None\nsys.argv = ['autodl', 'http']\nautodl.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={"HOME": str(web.home), "PATH": os.environ["PATH"]},
        user=web.uid,
        group=web.gid,
        extra_groups=[],
    )
    assert done.returncode == 1
    assert done.stderr.startswith("autodl: ")
    assert "apt install python3-h11" in done.stderr
    assert "pip install 'autodl[http]'" in done.stderr


def test_other_commands_do_not_load_it() -> None:
    code = (
        "import sys, autodl, os\n"
        "import autodl_lib.cli.main as main\n"
        "main.leave = lambda status: print([m for m in sys.modules if 'h11' in m or 'http_shim' in m], status)\n"
        "sys.argv = ['autodl', 'http', '--help']\n"
        "autodl.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.endswith("[] 0\n")


def test_the_token_is_kept_from_one_start_to_the_next(make_daemon: MakeDaemon, make_front: MakeFront) -> None:
    front = make_front(make_daemon().start()).start()
    token = front.token
    assert front.stop() == 0
    front.log_path.unlink()
    front.start()
    assert front.token == token
    assert front.get("/stats").status == 200


def test_the_token_is_in_the_users_own_folder_if_not_told_otherwise(web: User, place: Path) -> None:
    path = place / "s"
    os.chown(place, web.uid, web.gid)
    process = subprocess.Popen(
        [*AUTODL, "http", "--listen", f"unix:{path}"],
        env={"PATH": os.environ["PATH"], "HOME": str(web.home), "AUTODL_SOCKET": "/nowhere.sock"},
        user=web.uid,
        group=web.gid,
        extra_groups=[],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        token = web.home / ".local/state/autodl/http-token"
        assert process.stderr.readline() == f"INFO listens on unix:{path}; the token is in {token}\n"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700


def test_it_listens_on_a_unix_socket_of_its_own(make_daemon: MakeDaemon, make_front: MakeFront, web: User) -> None:
    daemon = make_daemon().start()
    path = web.home / "http.sock"
    front = make_front(daemon, "--listen", f"unix:{path}", "--listen", "127.0.0.1:0").start()
    assert ask_unix(front, path).startswith(b"HTTP/1.1 200 ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert front.get("/stats").status == 200
    front.process.kill()  # type: ignore[union-attr]
    front.process.wait()  # type: ignore[union-attr]
    # What it left is nobody's, and replaced.
    front.log_path.unlink()
    front.start()
    assert ask_unix(front, path).startswith(b"HTTP/1.1 200 ")
    assert front.stop() == 0
    assert not path.exists()


def test_a_socket_that_somebody_answers_on_is_not_taken_away(web: User) -> None:
    path = web.home / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        path.chmod(0o777)
        done = run_as(web, "--listen", f"unix:{path}")
    assert (done.returncode, "answers on" in done.stderr) == (1, True)
    path.unlink()


def test_sockets_of_the_service_manager_are_taken_over(
    make_daemon: MakeDaemon, make_front: MakeFront, web: User, place: Path
) -> None:
    daemon = make_daemon().start()
    path = place / "given.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        path.chmod(0o777)
        front = make_front(daemon)
        arguments = [word for word in front._command if word not in ("--listen", "127.0.0.1:0")]
        script = 'exec 3<&"$1" 4<&"$2"; shift 2; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@"'
        front._command = ["/bin/bash", "-c", script, "-", str(tcp.fileno()), str(unix.fileno()), *arguments]
        front.launch(pass_fds=[tcp.fileno(), unix.fileno()])
        wait_until(lambda: f"listens on unix:{path}" in front.log(), "it listens", seen=front.log)
        assert front.port == tcp.getsockname()[1]
        assert front.get("/stats").status == 200
        assert ask_unix(front, path).startswith(b"HTTP/1.1 200 ")
        assert front.stop() == 0
        assert path.exists()
        front._command += ["--listen", "127.0.0.1:0"]
        front.launch(pass_fds=[tcp.fileno(), unix.fileno()])
        assert front.process.wait(PATIENCE_S) == 2  # type: ignore[union-attr]
    assert "change those (ListenStream=)" in front.log()


def test_where_others_can_reach_it_it_warns(make_daemon: MakeDaemon, make_front: MakeFront) -> None:
    front = make_front(
        make_daemon().start(), "--listen", "0.0.0.0:0", "--allow-remote", "--host-name", "dl.example"
    ).start()
    wait_until(lambda: "WARNING" in front.log(), "it warns", seen=front.log)
    assert front.get("/stats", Host="dl.example:80").status == 200
    assert front.get("/stats", Host="evil.example").status == 421
    assert front.get("/stats", Host="0.0.0.0").status == 421


def test_an_allowed_page_may_ask_with_the_token(make_daemon: MakeDaemon, make_front: MakeFront) -> None:
    front = make_front(make_daemon().start(), "--allow-origin", "https://ui.example").start()
    page = {"Origin": "https://ui.example"}
    asked = front.ask("OPTIONS", "/rpc", token=False, Access_Control_Request_Method="POST", **page)
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == "https://ui.example"
    assert asked.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    reply = front.get("/stats", **page)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://ui.example")
    assert "access-control-allow-credentials" not in reply.headers
    assert front.ask("GET", "/stats", token=False, **page).status == 401
    other = front.get("/stats", Origin="https://ui.example.evil")
    assert (other.status, "access-control-allow-origin" in other.headers) == (403, False)
    assert (
        front.ask(
            "OPTIONS", "/rpc", token=False, Access_Control_Request_Method="POST", Host="evil.example", **page
        ).status
        == 401
    )


def test_it_waits_for_a_daemon_and_finds_it_again(make_daemon: MakeDaemon, make_front: MakeFront) -> None:
    daemon = make_daemon()
    front = make_front(daemon).start()
    for reply in (front.get("/stats"), front.rpc("stats"), front.get("/events")):
        assert (reply.status, reply.code) == (503, "no_daemon")
        assert "retry-after" in reply.headers
    daemon.start()
    assert front.get("/stats").status == 200
    # Connections that were kept to the old one are not mistaken for ones to the new.
    daemon.stop()
    assert front.rpc("stats").status == 503
    daemon.start()
    [task_id] = front.rpc("add", urls=["http://127.0.0.1:1/x"], paused=True).json["result"]["ids"]
    daemon.kill()
    daemon.start()
    assert front.get(f"/tasks/{task_id}").status == 200
    assert [task["id"] for task in front.get("/tasks").json["tasks"]] == [task_id]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to_with_clients_connected(
    make_daemon: MakeDaemon, make_front: MakeFront, number: signal.Signals
) -> None:
    front = make_front(make_daemon().start()).start()
    assert front.process is not None
    idle = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_S)
    with contextlib.closing(idle), front.connect() as silent, front.connect() as follower:
        idle.request("GET", "/stats", headers=front.bearer)
        idle.getresponse().read()
        follower.sendall(front.head("GET /events HTTP/1.1"))
        assert follower.recv(15) == b"HTTP/1.1 200 OK"
        front.process.send_signal(number)
        assert front.process.wait(PATIENCE_S) == 0
        assert read_all(silent) == b""
        read_all(follower)
    assert front.log().endswith("INFO stopped\n")


def test_without_a_daemon_of_the_machine_the_users_own_is_started(web: User, place: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(web.home)}
    as_user = {"user": web.uid, "group": web.gid, "extra_groups": [], "env": environment, "cwd": "/"}
    log = place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*AUTODL, "http", "--listen", "127.0.0.1:0", "--token-file", str(web.home / "token")],
            stderr=file,
            **as_user,  # type: ignore[call-overload]
        )
    try:
        wait_until(lambda: b"listens on" in log.read_bytes(), "it listens")
        port = int(re.findall(rb":(\d+);", log.read_bytes())[0])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        with contextlib.closing(client):
            token = (web.home / "token").read_text().strip()
            client.request("GET", "/stats", headers={"Authorization": f"Bearer {token}"})
            assert client.getresponse().status == 200
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        _stop_private(web)


def _stop_private(user: User) -> None:
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == user.uid and "--private" in process.cmdline():
                process.terminate()
                process.wait(PATIENCE_S)


def test_the_server_has_no_rights_to_lose(front: HttpFront, web: User, shared: Daemon) -> None:
    assert front.process is not None
    status = Path(f"/proc/{front.process.pid}/status").read_text()
    assert re.search(rf"^Uid:(\t{web.uid}){{4}}$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
