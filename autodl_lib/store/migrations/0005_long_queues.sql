-- Tasks get a row number of their own, in the order in which they came: those that are added together lie together,
-- however far the numbers of their owners are apart. And `list` finds tasks by host, label and time of adding.
CREATE TABLE task_in_order (
    row             INTEGER PRIMARY KEY,
    id              INTEGER NOT NULL UNIQUE,
    uid             INTEGER NOT NULL,
    owner           TEXT NOT NULL,
    url             TEXT NOT NULL,
    host            TEXT NOT NULL,
    dir             TEXT NOT NULL,
    output          TEXT,
    label           TEXT,
    headers         TEXT NOT NULL DEFAULT '[]',
    options         TEXT NOT NULL DEFAULT '{}',
    limit_rate_bps  INTEGER NOT NULL DEFAULT 0,
    on_conflict     TEXT NOT NULL CHECK (on_conflict IN ('rename', 'fail', 'overwrite')),
    priority        INTEGER NOT NULL DEFAULT 0,
    state           TEXT NOT NULL CHECK (state IN
                        ('enqueued', 'downloading', 'retrying', 'paused',
                         'finished', 'failed', 'cancelled', 'cleared')),
    want            TEXT NOT NULL DEFAULT 'run' CHECK (want IN ('run', 'pause', 'cancel')),
    name            TEXT,
    part            TEXT,
    dest            TEXT,
    inode           INTEGER,
    part_size_bytes INTEGER,
    mtime_ns        INTEGER,
    bytes_done      INTEGER NOT NULL DEFAULT 0 CHECK (bytes_done >= 0),
    bytes_total     INTEGER CHECK (bytes_total >= 0),
    attempts        INTEGER NOT NULL DEFAULT 0,
    streak          INTEGER NOT NULL DEFAULT 0,
    stuck_since     REAL,
    http_status     INTEGER,
    error_code      TEXT,
    error_message   TEXT,
    retry_at        REAL,
    created_at      REAL NOT NULL,
    started_at      REAL,
    finished_at     REAL,
    CHECK ((state = 'retrying') = (retry_at IS NOT NULL)),
    CHECK (state <> 'finished' OR (dest IS NOT NULL AND part IS NULL)),
    CHECK ((finished_at IS NOT NULL) = (state IN ('finished', 'failed', 'cancelled', 'cleared')))
) STRICT;

INSERT INTO task_in_order (
    id, uid, owner, url, host, dir, output, headers, options, limit_rate_bps, on_conflict, priority, state, want, name,
    part, dest, inode, part_size_bytes, mtime_ns, bytes_done, bytes_total, attempts, streak, stuck_since, http_status,
    error_code, error_message, retry_at, created_at, started_at, finished_at)
SELECT
    id, uid, owner, url, host, dir, output, headers, options, limit_rate_bps, on_conflict, priority, state, want, name,
    part, dest, inode, part_size_bytes, mtime_ns, bytes_done, bytes_total, attempts, streak, stuck_since, http_status,
    error_code, error_message, retry_at, created_at, started_at, finished_at
FROM task ORDER BY uid, id;

DROP TABLE task;
ALTER TABLE task_in_order RENAME TO task;

-- What runs next: a user's waiting tasks, best first; and those of one host, for when another may not be asked now.
CREATE INDEX task_waiting ON task (uid, priority DESC, id) WHERE state = 'enqueued';
CREATE INDEX task_waiting_host ON task (uid, host, priority DESC, id) WHERE state = 'enqueued';
-- Pages of `list`, and the counters at start.
CREATE INDEX task_by_state ON task (uid, state, id);
CREATE INDEX task_by_host ON task (uid, host, id);
CREATE INDEX task_by_label ON task (uid, label, id) WHERE label IS NOT NULL;
CREATE INDEX task_added ON task (uid, created_at);

CREATE INDEX task_due ON task (retry_at) WHERE state = 'retrying';
-- Tasks that only wait for the network, for when it comes back.
CREATE INDEX task_network ON task (id) WHERE state = 'retrying' AND error_code = 'network_down';
CREATE INDEX task_downloading ON task (id) WHERE state = 'downloading';
CREATE INDEX task_unwanted ON task (id) WHERE want <> 'run' AND state IN ('enqueued', 'downloading');
-- Settled tasks whose part file is still to be removed.
CREATE INDEX task_leftover ON task (uid, id) WHERE part IS NOT NULL AND state IN ('cancelled', 'cleared');
-- The newest settled tasks of a user are kept, the others forgotten, old ones of all users.
CREATE INDEX task_settled ON task (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX task_settled_of ON task (uid, finished_at) WHERE finished_at IS NOT NULL;
