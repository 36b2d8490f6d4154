"""Whether the machine has a way out, from what the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodl_lib.worker.network import default_route
from autodl_lib.worker.network.default_route import has_default_route, is_ipv4_default, is_ipv6_default, is_loopback

ZEROS = "0" * 32
HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
OUT_4 = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
LAN_4 = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
OUT_6 = f"{ZEROS} 00 {ZEROS} 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n"
REJECT_6 = f"{ZEROS} 00 {ZEROS} 00 {ZEROS} ffffffff 00000001 00000000 00200200       lo\n"
LINK_6 = f"fe800000000000000000000000000000 40 {ZEROS} 00 {ZEROS} 00000100 00000002 00000000 00000001     eth0\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (OUT_4, True),
        (LAN_4, False),
        (HEAD, False),
        (OUT_4.replace("0003", "0002"), False),
        (OUT_4.replace("0003", "0203"), False),
        ("", False),
        (OUT_4.replace("0003", "what"), False),
    ],
)
def test_lines_for_ipv4_are_understood(line: str, expected: bool) -> None:
    assert is_ipv4_default(line) is expected


@pytest.mark.parametrize(
    ("line", "expected"), [(OUT_6, True), (REJECT_6, False), (LINK_6, False), ("", False), (ZEROS, False)]
)
def test_lines_for_ipv6_are_understood(line: str, expected: bool) -> None:
    assert is_ipv6_default(line) is expected


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        (HEAD + OUT_4, REJECT_6, True),
        (HEAD + LAN_4, LINK_6 + OUT_6, True),
        (HEAD + LAN_4, LINK_6 + REJECT_6, False),
        (HEAD, None, False),
        (HEAD + OUT_4, None, True),
    ],
)
def test_either_family_is_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ipv4: str, ipv6: str | None, expected: bool
) -> None:
    (tmp_path / "4").write_text(ipv4)
    if ipv6 is not None:
        (tmp_path / "6").write_text(ipv6)
    monkeypatch.setattr(default_route, "_IPV4_ROUTES", str(tmp_path / "4"))
    monkeypatch.setattr(default_route, "_IPV6_ROUTES", str(tmp_path / "6"))
    assert has_default_route() is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("example.org", False),
    ],
)
def test_this_machine_is_known_by_its_names(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
