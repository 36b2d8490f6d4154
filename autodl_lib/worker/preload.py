"""What is done once for all workers, before the first one is forked: it costs their memory and their start then.

Runs as: root, in the forkserver, which imports this module; a worker only inherits what came of it.
Talks to: nobody: libraries set themselves up, nothing is connected, and nothing that a user or a network wrote is read.
How it fails: it doesn't; what did not work here, each worker does for itself.
"""

from __future__ import annotations

import gc

import autodl_lib.worker.entry  # noqa: F401  (all of a worker's code)
from autodl_lib.worker.network.request_options import initialise_libcurl

initialise_libcurl()
# What is left over from loading would be collected in each worker, and looking for it writes to every page.
gc.collect()
gc.freeze()
