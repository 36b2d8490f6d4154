-- What a task wants of its transfer (contract/transfer_options.py), as JSON of what is no default.
ALTER TABLE task ADD COLUMN options TEXT NOT NULL DEFAULT '{}';

-- Since when a task has failed without any progress in between; NULL while it has not.
ALTER TABLE task ADD COLUMN stuck_since REAL;

-- Tasks of one host, for when that host may not be asked now. See the statement `waiting_hosts`.
CREATE INDEX task_waiting_host ON task (uid, host, priority DESC, id) WHERE state = 'enqueued';

-- Rate limits that were set while the daemon ran, in bytes a second, 0 for none. uid -1 is the whole daemon's.
CREATE TABLE rate_limit (
    uid      INTEGER PRIMARY KEY,
    rate_bps INTEGER NOT NULL CHECK (rate_bps >= 0)
) STRICT;
