"""What a host says to one user is no word about another: nobody keeps others from a host."""

from __future__ import annotations

from support.accounts import accounts
from support.daemon import Daemon
from support.misbehaving_server import Case, MisbehavingServer
from support.waiting import wait_until


def test_a_user_s_own_proxy_speaks_for_a_host_to_that_user_alone(daemon: Daemon) -> None:
    """Who says that a host asked to be left alone may be anybody: a proxy of the user's, who means harm."""
    with MisbehavingServer() as host, MisbehavingServer() as proxy, accounts("alice", "bob") as users:
        wanted = host.serve("/wanted", Case(body=b"wanted"))
        busy = Case(status="503 Service Unavailable", headers=("Retry-After: 80000",), body=b"not now")
        proxy.serve(wanted, busy)  # a proxy is asked for the whole URL
        alice, bob = users["alice"], users["bob"]
        [held] = alice.call(daemon.socket, "add", urls=[wanted], proxy=f"http://127.0.0.1:{proxy.port}")["ids"]
        daemon.await_state(held, "retrying")
        assert proxy.requests, "the proxy was asked"
        [waits] = alice.call(daemon.socket, "add", urls=[wanted])["ids"]

        def explained() -> bool:
            return "asked to be left alone" in alice.call(daemon.socket, "explain", id=waits)["reason"]

        wait_until(explained, "it waits for the host", seen=lambda: daemon.status(waits))
        [free] = bob.call(daemon.socket, "add", urls=[wanted])["ids"]
        daemon.await_state(free, "finished")
        assert daemon.status(waits)["state"] == "enqueued"
