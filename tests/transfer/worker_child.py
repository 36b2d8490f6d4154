"""A worker in a process of its own, as tests start it: `worker_child.py ORDERS_FD REPORTS_FD [MODULE:NAME=NUMBER...]`.

Reports go back as lines of JSON over a pipe, in place of the report queue. Constants of the worker's modules can have
other values than usual, where a busy machine would decide what a test sees.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys

from autodl_lib.contract.codec import message_to_json
from autodl_lib.contract.worker_messages import Report
from autodl_lib.worker.main import run


class PipeSender:
    """A ReportSender that writes to a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def put(self, reports: list[Report]) -> None:
        """See reporting.ReportSender."""
        text = "".join(json.dumps(message_to_json(report)) + "\n" for report in reports).encode()
        while text:
            text = text[os.write(self._fd, text) :]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    for constant in sys.argv[3:]:
        module, name, value = re.split("[:=]", constant)
        assert hasattr(importlib.import_module(module), name)
        setattr(importlib.import_module(module), name, float(value))
    run(int(sys.argv[1]), PipeSender(int(sys.argv[2])), None)
