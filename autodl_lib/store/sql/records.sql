-- Statements on what surrounds tasks: history, counters, holds. Each begins with a line `-- name: NAME`.

-- name: insert_event
INSERT INTO event (task_id, at, event, state, detail) VALUES (?, ?, ?, ?, ?)

-- name: events_of
SELECT at, event, state, detail FROM (
    SELECT id, at, event, state, detail FROM event WHERE task_id = ? ORDER BY id DESC LIMIT ?) ORDER BY id

-- name: delete_events
DELETE FROM event WHERE task_id = ?

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
