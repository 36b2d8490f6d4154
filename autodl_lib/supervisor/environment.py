"""The environment that a daemon of all users hands on: what its processes need, and nothing else.

Runs as: the supervisor, before it starts any process.  Talks to: nobody.
Security: what a service manager or an administrator's shell had in its environment (tokens, proxies with passwords)
stays in the supervisor. A worker can read, in its memory and in /proc, the environment that its forkserver was
started with, whatever it clears of it later.
"""

from __future__ import annotations

from collections.abc import MutableMapping

_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CURL_CA_BUNDLE"}
)
_KEPT_PREFIXES = ("LC_", "PYTHON", "SSL_CERT_", "AUTODL_")


def forget_the_rest(environment: MutableMapping[str, str]) -> None:
    """Remove what no process of the daemon needs."""
    for name in list(environment):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del environment[name]
