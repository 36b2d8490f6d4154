"""What is done once for all workers, before the first one is forked: it costs their memory and their start then.

Runs as: root, in the forkserver, which imports this module; a worker only inherits what came of it.
Talks to: what the machine asks for its users and groups; nothing that a user or a network wrote is read.
How it fails: it doesn't; what did not work here, each worker does for itself.
"""

from __future__ import annotations

import contextlib
import encodings.ascii  # noqa: F401  (what is looked up by name at its first use)
import gc
import multiprocessing.popen_forkserver  # noqa: F401
import os

import autodl_lib.worker.entry  # noqa: F401  (all of a worker's code)
from autodl_lib.contract.codec import prepare
from autodl_lib.contract.spare_memory import give_back_memory
from autodl_lib.contract.worker_messages import ORDERS, REPORTS
from autodl_lib.worker.network.request_options import initialise_libcurl

initialise_libcurl()
for message in (*ORDERS, *REPORTS):
    prepare(message)
with contextlib.suppress(OSError):
    os.getgrouplist("root", 0)  # the C library loads what it asks for users and groups
# What is left over from loading would be collected in each worker, and looking for it writes to every page.
give_back_memory()
gc.freeze()
