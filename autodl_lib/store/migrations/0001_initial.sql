-- The queue as of version 1. The lists in the CHECKs are those of contract/states.py; a test compares them.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE task (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    uid             INTEGER NOT NULL,
    owner           TEXT NOT NULL,
    url             TEXT NOT NULL,
    host            TEXT NOT NULL,
    dir             TEXT NOT NULL,
    output          TEXT,
    headers         TEXT NOT NULL DEFAULT '[]',
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

-- What runs next: a user's waiting tasks, best first.
CREATE INDEX task_waiting ON task (uid, priority DESC, id) WHERE state = 'enqueued';
-- A user's tasks by state: pages of `list`, and the counters at start.
CREATE INDEX task_by_state ON task (uid, state, id);
CREATE INDEX task_due ON task (retry_at) WHERE state = 'retrying';
CREATE INDEX task_downloading ON task (id) WHERE state = 'downloading';
CREATE INDEX task_unwanted ON task (id) WHERE want <> 'run' AND state IN ('enqueued', 'downloading');
-- Settled tasks whose part file is still to be removed.
CREATE INDEX task_leftover ON task (uid, id) WHERE part IS NOT NULL AND state IN ('cancelled', 'cleared');
CREATE INDEX task_settled ON task (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE event (
    id      INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL,
    at      REAL NOT NULL,
    event   TEXT NOT NULL,
    state   TEXT NOT NULL,
    detail  TEXT
) STRICT;

CREATE INDEX event_by_task ON event (task_id, id);

-- Answers per response code, in buckets of some seconds, kept for ten minutes.
CREATE TABLE response (
    bucket INTEGER NOT NULL,
    uid    INTEGER NOT NULL,
    code   TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (bucket, uid, code)
) STRICT, WITHOUT ROWID;

-- Bytes taken from the network, per user and UTC day.
CREATE TABLE traffic (
    uid   INTEGER NOT NULL,
    day   INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (uid, day)
) STRICT, WITHOUT ROWID;

-- Whose queue is held, and until when (NULL: until resume). uid -1 is everybody's.
CREATE TABLE hold (
    uid   INTEGER PRIMARY KEY,
    until REAL
) STRICT;
