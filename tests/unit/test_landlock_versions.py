"""What is asked of Landlock fits the version that the kernel has, from the first one on."""

from __future__ import annotations

import pytest

from autodl_lib.privilege import landlock
from autodl_lib.privilege.landlock import MANAGER_DENIED, WORKER_DENIED, WRITING_DENIED, Denied

FILES_OF = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16}
"""How many kinds of access to files each version knows: their bits are numbered from 0 (linux/landlock.h)."""

SIZE_OF = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16, 6: 24, 7: 24}
"""How long struct landlock_ruleset_attr is in each version."""

EXECUTE, MAKE_SYM, REFER, IOCTL_DEV = 1 << 0, 1 << 12, 1 << 13, 1 << 15


@pytest.mark.parametrize("abi", sorted(FILES_OF))
@pytest.mark.parametrize(
    "denied", [WORKER_DENIED, WRITING_DENIED, MANAGER_DENIED], ids=["worker", "writing", "manager"]
)
def test_nothing_is_asked_that_the_version_does_not_know_and_all_that_it_does(denied: Denied, abi: int) -> None:
    ruleset, size = landlock._ruleset(denied, abi)
    known = (1 << FILES_OF[abi]) - 1
    assert ruleset.files == denied.files & known
    assert ruleset.net == (denied.net if abi >= 4 else 0)
    assert ruleset.scopes == (denied.scopes if abi >= 6 else 0)
    assert size == SIZE_OF[abi]


def test_a_worker_may_not_run_programs_make_symlinks_or_move_files_away_whatever_the_version_can_tell() -> None:
    for abi, denied in ((1, EXECUTE | MAKE_SYM), (2, REFER), (5, IOCTL_DEV)):
        assert landlock._ruleset(WORKER_DENIED, abi)[0].files & denied == denied


def test_an_administrator_is_told_what_the_kernel_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 0)
    assert "no Landlock here" in landlock.confinement_words(to_folder=True)
    landlock.confine(WORKER_DENIED)  # does nothing, and says nothing
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 5)
    assert landlock.confinement_words(to_folder=True).endswith("Landlock (version 5), each to one folder")
    assert landlock.confinement_words(to_folder=False).endswith("Landlock (version 5)")
