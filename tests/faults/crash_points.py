"""The table of crash points: where a process of the daemon is killed, and why a crash there is worth a look.

A point is a function of the product (`module:Class.method` below `autodl_lib.`) and a moment, before or after it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """`point` and `moment` as the hooks take them; `reason`: what is on disk then, or who waits for what."""

    point: str
    moment: str
    reason: str

    def __str__(self) -> str:
        return f"{self.moment} {self.point}"


def _table(rows: str) -> tuple[CrashPoint, ...]:
    points = []
    for row in rows.strip().splitlines():
        name, moment, reason = (word.strip() for word in row.split("|"))
        points.append(CrashPoint(f"autodl_lib.{name}", moment, reason))
    return tuple(points)


STORE = _table("""
store.writer:Writer._commit               | before | jobs wait in memory, nothing of them is on disk
store.writer:Writer._run                  | after  | a transaction is open, and half of its jobs have run
store.writer:Writer._deliver              | before | the commit is on disk, and nobody has been told
store.writer:Writer._deliver              | after  | futures are resolved, their replies not sent
store.writer:Writer.close                 | before | the daemon stops, its queue is still open
store.writer:Writer.close                 | after  | the queue is closed, the socket still there
store.transaction:Transaction.insert      | after  | tasks are in a transaction that is never committed
store.transaction:Transaction.apply       | after  | a task's state has changed in an open transaction
store.transaction:Transaction.describe    | after  | a part file's name is in an open transaction
store.transaction:Transaction.want        | after  | an owner's wish is in an open transaction
store.transaction:Transaction.forget_part | after  | the part file is gone, its row still names it
store.transaction:Transaction.enqueue_due | after  | retries are due in an open transaction
store.database:open_database              | before | the state folder is claimed, the queue not open
store.database:_migrate                   | before | the database may be empty, without a table
store.database:open_database              | after  | the tables are there, nothing else is
store.transaction:Transaction.recover     | before | the last daemon's running tasks look as if they ran
store.transaction:Transaction.recover     | after  | they were given back in a transaction that is lost
""")

POOL = _table("""
supervisor.state_dir:claim_state_dir            | after  | the lock is held, nothing else has begun
supervisor.clients.listener:bind_socket         | after  | the socket is there, nobody answers
supervisor.clients.listener:Listener.start      | after  | clients are answered, no pool is there
supervisor.daemon:Daemon._start_pool            | before | the queue is recovered, no process was started
supervisor.workers.queue_link:QueueLink.start   | after  | the report queue runs, no worker does
supervisor.workers.starter:Starter.start_worker | before | a task is leased to a worker that does not exist
supervisor.workers.processes:start              | after  | a worker exists that nobody has noted
supervisor.workers.pool:Pool.spawn              | after  | a lease is made, its worker is not
supervisor.workers.pool:Pool.assign             | after  | a lease is made, its order not sent
supervisor.workers.pool:Pool.share              | after  | orders are in the outbox of their worker
supervisor.workers.reception:Reception.take     | before | reports are drained from the queue and not recorded
supervisor.workers.pool:Pool.publish            | before | `ready` is on disk, its worker waits for leave
supervisor.workers.pool:Pool.publish            | after  | leave to publish is in the outbox
supervisor.workers.pool:Pool.end_lease          | before | a task's end is on disk, its lease still runs
supervisor.workers.pool:Pool.halt               | after  | a worker is told to let go, the client waits
supervisor.workers.pool:Pool.discard            | after  | a cancelled task's part file is about to go
supervisor.workers.pool:Pool.retire             | after  | a worker is told to leave
supervisor.workers.pool:Pool._lose              | before | a worker is dead, what it had is not given back
supervisor.workers.pool:Pool.close              | before | the daemon has begun to stop
supervisor.outcomes:Outcomes.record             | before | reports are checked, not recorded
supervisor.outcomes:Outcomes.record             | after  | reports are recorded, nothing followed from it
supervisor.outcomes:Outcomes.record_losses      | before | a loss is known, and not on disk
supervisor.outcomes:Outcomes.record_losses      | after  | a loss is on disk, the lease still there
supervisor.outcomes:Outcomes._deliver           | before | a transaction is open, and has no complete file yet
supervisor.outcomes:Outcomes._deliver           | after  | identities, and what is finished, are in an open transaction
supervisor.runner:Runner._plan                  | before | something has changed, and nobody has planned
supervisor.workers.report_queue:Reports.put     | before | the manager takes a report: the worker has no answer
supervisor.workers.report_queue:Reports.put     | after  | the manager has a report that nobody drains
supervisor.workers.report_queue:Reports.drain   | after  | reports are out of the queue, and reach nobody
privilege.first_code:start_worker               | before | the new process is still root
privilege.first_code:_become_owner              | after  | it is its user, and has all descriptors of the forkserver
privilege.first_code:keep_only                  | after  | it is about to run the worker's code
privilege.first_code:drop_manager               | after  | the report queue is bound, and not ready
""")

WORKER = _table("""
worker.session:Session._begin                | before | an assignment is taken, nothing is done
worker.files.folder:_open                    | after  | the folder is made and open
worker.files.part_file:_claim                | after  | an empty part file is there, nobody knows its name
worker.files.part_file:claim_part            | after  | the same, and its name is chosen
worker.files.part_file:PartFile.write        | after  | bytes are in the page cache
worker.files.part_file:PartFile.sync         | before | all bytes came, none is synced
worker.files.part_file:PartFile.sync         | after  | all bytes are synced, nobody knows
worker.files.part_file:PartFile.identity     | after  | the same, and the file's identity is taken
worker.files.part_file:PartFile.checkpoint   | before | bytes came that no control file names
worker.files.control_file:ControlFile.create | after  | the control file is blank
worker.files.control_file:ControlFile.write  | before | the bytes are synced, the slot not written
worker.files.control_file:ControlFile.write  | after  | the slot is synced, nobody was told
worker.files.part_file:reopen_part           | after  | the part file of an earlier attempt is taken up
worker.files.part_file:discard_part          | before | a part file is to go
worker.files.part_file:discard_part          | after  | a part file is gone, its row names it
worker.files.part_file:PartFile.remove       | before | a part file is not wanted any more
worker.files.part_file:PartFile.remove       | after  | it is gone, nobody was told
worker.files.part_file:clear_abandoned       | before | a part file that is nobody's is in the way
worker.files.part_file:clear_abandoned       | after  | it is gone, the new one not there
worker.files.unnamed_file:open_unnamed       | after  | a small file has come, and is nowhere to be seen
worker.files.unnamed_file:UnnamedFile.give_name | before | leave to publish a small file has come, it has no name
worker.files.unnamed_file:UnnamedFile.give_name | after  | it has its name, the folder is not synced
worker.files.publish:place                   | before | leave to publish has come, the name is not given
worker.files.publish:_give_new_name          | after  | the file has its name, the folder is not synced
worker.files.publish:_replace                | before | the file that is to be replaced is still there
worker.files.publish:_replace                | after  | the old file is gone, nothing is synced
worker.files.part_file:PartFile.drop_control | before | the file has its name, a control file may be left
worker.files.folder:Folder.sync              | before | names are given, the folder is not synced
worker.files.folder:Folder.sync              | after  | all is on disk, nobody was told
worker.delivery:Delivery.finish              | after  | the end is to be reported
worker.files.publish:finish_published        | before | an earlier attempt may have published it
worker.files.publish:finish_published        | after  | that is seen and completed, and not reported
worker.files.part_file:reopen_identical      | after  | the complete part file of an earlier attempt is taken up
worker.report_channel:ReportChannel.put      | before | reports are made, none is sent
worker.report_channel:ReportChannel.put      | after  | reports are sent
worker.letting_go:release                    | before | a halted part file is about to be saved
worker.backlog:Backlog.retire                | before | it is told to leave, with its files open
worker.backlog:Backlog.leave                 | before | the supervisor has died, parts are to be saved
worker.session:Session.leave                 | after  | a part file was saved for nobody's ears
""")

ALL = (*STORE, *POOL, *WORKER)
