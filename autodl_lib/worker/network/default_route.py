"""Whether this machine has a way out: if not, a failed connection says nothing about its task.

Runs as: the task's owner.  Talks to: /proc/net, reading only.
Source: proc_net(5), linux/route.h (RTF_UP, RTF_REJECT), linux/ipv6_route.h.
Known limits: a default route whose gateway is dead counts as a way out. A machine that reaches its network without a
default route (an isolated LAN) waits for names that don't exist, too, as for ones that can't be asked for yet.
"""

from __future__ import annotations

import ipaddress

_IPV4_ROUTES = "/proc/net/route"
_IPV6_ROUTES = "/proc/net/ipv6_route"
_UP = 0x1
_REJECT = 0x200


def has_default_route() -> bool:
    """Tell whether packets to just any address would leave this machine; True where that can't be known."""
    try:
        return any(map(is_ipv4_default, _lines(_IPV4_ROUTES))) or any(map(is_ipv6_default, _lines(_IPV6_ROUTES)))
    except OSError:
        return True


def is_ipv4_default(line: str) -> bool:
    """Tell whether a line of /proc/net/route is a default route."""
    words = line.split()
    if len(words) < 8 or words[1] != "00000000" or words[7] != "00000000":
        return False
    return _leads_out(words[0], words[3])


def is_ipv6_default(line: str) -> bool:
    """Tell whether a line of /proc/net/ipv6_route is a default route; the kernel always has one that rejects."""
    words = line.split()
    if len(words) < 10 or words[0] != "0" * 32 or words[1] != "00":
        return False
    return _leads_out(words[9], words[8])


def is_loopback(host: str) -> bool:
    """Tell whether a host of a URL is this machine itself."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _leads_out(interface: str, flags: str) -> bool:
    try:
        bits = int(flags, 16)
    except ValueError:
        return False
    return interface != "lo" and bits & _UP != 0 and bits & _REJECT == 0


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:  # IPv6 can be switched off
        return []
