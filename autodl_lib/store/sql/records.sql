-- Statements on what surrounds tasks: history, counters, holds. Each begins with a line `-- name: NAME`.

-- name: log_move
INSERT INTO event (task_id, at, event, state, detail, owner_uid, actor_uid, actor, pid, program)
VALUES (:task_id, :at, :event, :state, :detail, :owner_uid, :actor_uid, :actor, :pid, :program)

-- The same for many tasks.
-- name: log_moves
INSERT INTO event (task_id, at, event, state, detail, owner_uid, actor_uid, actor, pid, program)
SELECT id, :at, :event, :state, :detail, CASE WHEN :owned THEN uid END, :actor_uid, :actor, :pid, :program
FROM task WHERE id IN (SELECT value FROM json_each(:ids))

-- BETWEEN: sqlite would put what task_id equals in its place in the first term as well, and not find it in the index.
-- name: events_of
SELECT at, event, state, detail, actor, actor_uid, pid, program FROM (
    SELECT * FROM event INDEXED BY event_by_task
    WHERE task_id % 1000 = :id % 1000 AND task_id BETWEEN :id AND :id ORDER BY task_id DESC, id DESC LIMIT :limit)
ORDER BY id

-- name: delete_events
DELETE FROM event WHERE id IN (
    SELECT event.id FROM json_each(?) AS gone CROSS JOIN event INDEXED BY event_by_task
    ON event.task_id % 1000 = gone.value % 1000 AND event.task_id = gone.value)

-- name: history_of
SELECT at, event, state, detail, actor, actor_uid, pid, program, task_id, owner_uid,
       (SELECT owner FROM task WHERE task.id = event.task_id), (SELECT url FROM task WHERE task.id = event.task_id)
FROM event WHERE owner_uid = ? AND at >= ? ORDER BY at DESC, id DESC LIMIT ?

-- name: history_of_all
SELECT at, event, state, detail, actor, actor_uid, pid, program, task_id, owner_uid,
       (SELECT owner FROM task WHERE task.id = event.task_id), (SELECT url FROM task WHERE task.id = event.task_id)
FROM event WHERE owner_uid IS NOT NULL AND at >= ? ORDER BY at DESC, id DESC LIMIT ?

-- name: owners_of_events
WITH RECURSIVE found (uid) AS (
    SELECT MIN(owner_uid) FROM event WHERE owner_uid IS NOT NULL
    UNION ALL
    SELECT (SELECT MIN(owner_uid) FROM event WHERE owner_uid > found.uid) FROM found WHERE found.uid IS NOT NULL)
SELECT uid FROM found WHERE uid IS NOT NULL

-- The oldest of those that are to stay.
-- name: event_to_keep
SELECT at FROM event WHERE owner_uid = ? ORDER BY at DESC LIMIT 1 OFFSET ?

-- name: forget_events_of
DELETE FROM event WHERE id IN (SELECT id FROM event WHERE owner_uid = ? AND at < ? ORDER BY at LIMIT ?)

-- name: last_number
SELECT last FROM number_series WHERE series = ?

-- name: set_last_number
INSERT INTO number_series (series, last) VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET last = excluded.last

-- name: series_of_user
SELECT series FROM series_of_user WHERE uid = ?

-- name: set_series_of_user
INSERT INTO series_of_user (uid, series) VALUES (?, ?)

-- name: all_series
SELECT DISTINCT series FROM series_of_user

-- name: numbers_before_series
SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'numbers_before_series'

-- name: setting
SELECT value FROM meta WHERE key = ?

-- name: keep_setting
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: drop_setting
DELETE FROM meta WHERE key = ?

-- name: add_responses
INSERT INTO response (bucket, uid, code, n) VALUES (?, ?, ?, ?)
ON CONFLICT (bucket, uid, code) DO UPDATE SET n = n + excluded.n

-- name: forget_responses
DELETE FROM response WHERE bucket < ?

-- name: responses_of
SELECT code, SUM(n) FROM response WHERE bucket >= ? AND uid = ? GROUP BY code

-- name: responses_of_all
SELECT code, SUM(n) FROM response WHERE bucket >= ? GROUP BY code

-- name: add_traffic
INSERT INTO traffic (uid, day, bytes) VALUES (?, ?, ?)
ON CONFLICT (uid, day) DO UPDATE SET bytes = MIN(bytes + excluded.bytes, 4611686018427387904)

-- name: traffic_of
SELECT CAST(COALESCE(TOTAL(bytes), 0) AS INTEGER) FROM traffic WHERE uid = ?

-- name: traffic_of_day
SELECT bytes FROM traffic WHERE uid = ? AND day = ?

-- name: traffic_of_all
SELECT CAST(COALESCE(TOTAL(bytes), 0) AS INTEGER) FROM traffic

-- name: set_hold
INSERT INTO hold (uid, until) VALUES (?, ?) ON CONFLICT (uid) DO UPDATE SET until = excluded.until

-- name: lift_hold
DELETE FROM hold WHERE uid = ?

-- name: holds
SELECT uid, until FROM hold

-- name: rate_limits
SELECT uid, rate_bps, ceiling_bps FROM rate_limit

-- name: set_rate_limit
INSERT INTO rate_limit (uid, rate_bps, ceiling_bps) VALUES (?, ?, ?)
ON CONFLICT (uid) DO UPDATE SET rate_bps = excluded.rate_bps, ceiling_bps = excluded.ceiling_bps

-- name: database_tag
SELECT value FROM meta WHERE key = 'tag'

-- name: set_database_tag
INSERT INTO meta (key, value) VALUES ('tag', ?)
