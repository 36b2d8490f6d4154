"""The start of one worker: what it is told, and what there is of it then.

Runs as: the supervisor.  Talks to: the starter.
"""

from __future__ import annotations

from autodl_lib.contract.settings import WorkerSection
from autodl_lib.privilege.first_code import WorkerStart
from autodl_lib.supervisor.workers.queue_link import QueueLink
from autodl_lib.supervisor.workers.roster import Coming
from autodl_lib.supervisor.workers.starter import Starter
from autodl_lib.supervisor.workers.worker_handle import Worker


async def launch(starter: Starter, link: QueueLink, coming: Coming, limits: WorkerSection) -> Worker:
    """Start a worker's process.

    Raises: OSError, EOFError.
    """
    start = WorkerStart(
        uid=coming.uid,
        key=coming.key,
        queue_address=link.address,
        queue_key=link.key,
        queue_ident=link.ident,
        limits=limits,
        is_confined=bool(coming.folder),
    )
    process, orders, pidfd = await starter.start_worker(start)
    return Worker(coming.key, coming.work[0][0], process, orders, pidfd)
