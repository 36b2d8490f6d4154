-- Who asked for a change, from which process; NULL where nobody did (a worker's report, the daemon itself).
ALTER TABLE event ADD COLUMN actor_uid INTEGER;
ALTER TABLE event ADD COLUMN actor TEXT;
ALTER TABLE event ADD COLUMN pid INTEGER;
ALTER TABLE event ADD COLUMN program TEXT;
-- Whose history shows it: changes that somebody asked for, and how tasks ended. uid -1 is the whole daemon's.
-- task_id is 0 where it is about no single task.
ALTER TABLE event ADD COLUMN owner_uid INTEGER;

CREATE INDEX event_history ON event (owner_uid, at) WHERE owner_uid IS NOT NULL;
CREATE INDEX event_history_of_all ON event (at) WHERE owner_uid IS NOT NULL;

-- The newest settled tasks of a user are kept, the others forgotten.
CREATE INDEX task_settled_of ON task (uid, finished_at) WHERE finished_at IS NOT NULL;

-- The highest number that was given out in each series of task numbers (store/numbering.py), and whose series is which.
CREATE TABLE number_series (
    series INTEGER PRIMARY KEY,
    last   INTEGER NOT NULL
) STRICT;
CREATE TABLE series_of_user (
    uid    INTEGER PRIMARY KEY,
    series INTEGER NOT NULL
) STRICT;
INSERT INTO number_series (series, last) SELECT -1, COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'task';
INSERT INTO meta (key, value) SELECT 'numbers_before_series', last FROM number_series;
