"""What an assignment has on disk: its folder, its name, its part file, and which remote version that is of.

Runs as: the task's owner.  Talks to: the destination folder.
Invariants: `part` is open and locked while it is not None; nothing is kept that a later attempt could not verify.
How it fails: OSError, or TaskFailed with a sentence that names the path.
"""

from __future__ import annotations

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Assign, FileIdentity, TransferSettings
from autodl_lib.worker.files.control_file import ControlRecord, Ranges
from autodl_lib.worker.files.file_name import check_output, name_from_response
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.files.part_file import (
    Claim,
    PartFile,
    check_not_taken,
    claim_part,
    reopen_identical,
    reopen_part,
)
from autodl_lib.worker.files.publish import finish_published, place
from autodl_lib.worker.network.response import Accept, RemoteVersion
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import TaskFailed
from autodl_lib.worker.preparation import Adopted
from autodl_lib.worker.transfer.job import has_checksum

_UNKNOWN = RemoteVersion(size=None, etag=None, last_modified=None)


class Holding:
    """One assignment's files."""

    def __init__(self, assign: Assign, folder: Folder, settings: TransferSettings) -> None:
        self.folder = folder
        self.name = ""
        self._wanted: str | None = None
        """The name that `name` is like, where this attempt has chosen it."""
        self.part: PartFile | None = None
        self.version = _UNKNOWN
        self.record: ControlRecord | None = None
        """What the control file said when the part file was opened."""
        self._assign = assign
        self._settings = settings

    def opened(self) -> PartFile:
        """Return the part file where there must be one."""
        if self.part is None:
            raise RuntimeError("no part file is open")
        return self.part

    def was_published(self, identity: FileIdentity) -> bool:
        """Tell whether an earlier attempt published the file; completes that if it was interrupted."""
        name = self._assign.name
        if name is None or not finish_published(self.folder, check_output(name), self._assign.part, identity):
            return False
        self.name = name
        return True

    def take_up_complete(self, identity: FileIdentity) -> bool:
        """Open the complete part file that an earlier attempt reported; False when it is not there."""
        name, part = self._assign.name, self._assign.part
        if name is None or part is None:
            return False
        self.part = reopen_identical(self.folder, part, identity)
        if self.part is None:
            return False
        self.name = check_output(name)
        self.version = RemoteVersion(size=identity.size_bytes, etag=None, last_modified=None)
        return True

    def take_up_part(self) -> ControlRecord | None:
        """Open the part file of an earlier attempt; returns what is in it if that can be continued."""
        name, part = self._assign.name, self._assign.part
        found = reopen_part(self.folder, part, self._assign.tag) if name and part else None
        if found is None or not name:
            return None
        self.name = check_output(name)
        self.part, record = found
        self.version = record.version
        if not self.is_worth_keeping(record.ranges):
            return None
        self.record = record
        return record

    def check_name(self) -> None:
        """Refuse, before anything is downloaded, a name that is known and can't be had.

        Raises: TaskFailed.
        """
        if self._assign.output is not None:
            check_output(self._assign.output)
        known = self.name or self._assign.output
        if known:
            check_not_taken(self.folder, self._claim(known))

    def open_for(self, accepted: Accept, head: ResponseHead | None) -> PartFile:
        """Return the part file for an accepted response: a new one, the old one, or the old one emptied.

        The name is that of the task's URL, whichever mirror has answered.
        """
        kept = self.record.bytes_done() if self.record is not None and accepted.is_part else 0
        self.check_space((accepted.version.size or 0) - kept)
        if self.part is None:
            output = self._assign.output
            name = self._wanted = output if output is not None else name_from_response(self._assign.url, head)
            self.name, self.part = claim_part(self.folder, self._claim(name))
        elif not accepted.is_part:
            self.part.start_over(self.record_of(()), durable=self._settings.durable)
            self.record = None
        self.version = accepted.version
        return self.part

    def adopt(self, adopted: Adopted) -> PartFile:
        """Claim a part file for what another program has left."""
        size = adopted.version.size or 0
        self.check_space(size)
        output = self._assign.output
        name = self._wanted = output if output is not None else name_from_response(self._assign.url, adopted.head)
        self.name, self.part = claim_part(self.folder, self._claim(name))
        return self.part

    def adopted(self, adopted: Adopted, copied_bytes: int) -> ControlRecord | None:
        """Take up what was copied; None when that is nothing."""
        if not copied_bytes:
            return None
        self.version = adopted.version
        self.record = self.record_of(((0, copied_bytes),))
        return self.record

    def publish(self) -> bool:
        """Give the part file its final name; False when that is taken and another was chosen."""
        wanted = self._wanted or self._assign.output or self.name
        next_name = place(self.opened(), self.name, self._assign.on_conflict, wanted=wanted)
        if next_name is not None:
            self.name = next_name
        return next_name is None

    def check_space(self, needed_bytes: int) -> None:
        """Refuse to fill the disk.

        Raises: TaskFailed, OSError.
        """
        reserve = self._settings.min_free_bytes
        if self.folder.had_plenty(needed_bytes + reserve):
            return
        free = self.folder.free_bytes()
        if free - needed_bytes < reserve:
            words = f"too little space in {self.folder.path}: {max(needed_bytes, 0)} bytes are needed"
            raise TaskFailed(FailureCode.DISK_FULL, f"{words}, {free} are free, and {reserve} must stay free")

    def is_worth_keeping(self, ranges: Ranges | None) -> bool:
        """Tell whether a later attempt could go on from these ranges."""
        if not ranges:
            return False
        is_http = self._assign.url[:4].lower() == "http"
        by_size = not is_http and self.version.size is not None and has_checksum(self._assign.options)
        return self.version.has_validator() or by_size or self.record_of(ranges).is_complete()

    def record_of(self, ranges: Ranges) -> ControlRecord:
        """Return what the control file is to say about these ranges."""
        return ControlRecord(tag=self._assign.tag, version=self.version, ranges=ranges)

    def _claim(self, name: str) -> Claim:
        assign = self._assign
        return Claim(name=name, on_conflict=assign.on_conflict, tag=assign.tag, is_exact=assign.options.if_newer)
