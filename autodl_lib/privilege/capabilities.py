"""The capabilities of this process: giving them up in all five sets, and reading what is left.

Runs as: root before the drop, then the task's owner.  Talks to: the kernel.
Invariants: the bounding set goes first, since that takes a capability (CAP_SETPCAP) which the drop gives up; so do the
securebits, which keep uid 0 from meaning capabilities ever again.
How it fails: nothing raises here. A service manager may have taken CAP_SETPCAP or capset(2) away, and then there is
less to give up; whether enough has gone is for `drop.prove` to see.
Source: capabilities(7), capget(2), prctl(2), linux/securebits.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_SETPCAP = 8

NONE = 0
FILES_OF_ALL = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER
"""What a worker of root keeps, so that root may save wherever root may: no other capability has to do with saving."""

_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64

_NOROOT_AND_LOCKED = 0b11
_SETUID_FIXUP_LOCKED = 1 << 3
_KEEP_CAPS_LOCKED = 1 << 5
_NO_AMBIENT_RAISE_AND_LOCKED = 0b11 << 6
_SECUREBITS = _NOROOT_AND_LOCKED | _SETUID_FIXUP_LOCKED | _KEEP_CAPS_LOCKED | _NO_AMBIENT_RAISE_AND_LOCKED

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitySets:
    """The five sets of this process, each as bits."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int

    @property
    def usable(self) -> int:
        """What the process has or can hand on, the bounding set aside, which only limits what exec may bring."""
        return self.inheritable | self.permitted | self.effective | self.ambient


def bound(kept: int) -> None:
    """Before the drop: take all but `kept` out of the bounding and ambient sets, and fix the securebits."""
    for capability in range(_MOST_CAPABILITIES):
        # Fails past the last one that the kernel knows, and where there is no CAP_SETPCAP.
        if not kept >> capability & 1 and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(_PR_SET_SECUREBITS, _SECUREBITS, 0, 0, 0)


def reduce(kept: int) -> None:
    """After the drop: have no capability but `kept`, of those that are left."""
    permitted = read_capabilities().permitted & kept
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _libc.capset(header, data)


def read_capabilities() -> CapabilitySets:
    """Return what the kernel says of this process."""
    found = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Cap"):
                name, _, bits = line.partition(":")
                found[name] = int(bits, 16)
    return CapabilitySets(
        inheritable=found["CapInh"],
        permitted=found["CapPrm"],
        effective=found["CapEff"],
        bounding=found["CapBnd"],
        ambient=found["CapAmb"],
    )
