-- What `list` asks. Each begins with a line `-- name: NAME`. `along_*` go along an index of a user's tasks, or along the
-- numbers of all, and say of each task whether it is wanted: that looks at the task itself only where `:all` is false,
-- since what is asked for is more than the index tells. The reader goes the other way, too.

-- name: along_state
SELECT id, CASE WHEN :all THEN 1 ELSE $wanted END FROM task INDEXED BY task_by_state
WHERE uid = :uid AND state = :key AND id > :low AND id < :high ORDER BY id LIMIT :limit

-- name: along_host
SELECT id, CASE WHEN :all THEN 1 ELSE $wanted END FROM task INDEXED BY task_by_host
WHERE uid = :uid AND host = :key AND id > :low AND id < :high ORDER BY id LIMIT :limit

-- name: along_label
SELECT id, CASE WHEN :all THEN 1 ELSE $wanted END FROM task INDEXED BY task_by_label
WHERE uid = :uid AND label = :key AND id > :low AND id < :high ORDER BY id LIMIT :limit

-- name: along_numbers
SELECT id, CASE WHEN :all THEN 1 ELSE $wanted END FROM task
WHERE id > :low AND id < :high ORDER BY id LIMIT :limit

-- name: wanted
(:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
AND (:host IS NULL OR host = :host OR (host >= :host || ':' AND host < :host || ';'))
AND (:label IS NULL OR label = :label)
AND (:since IS NULL OR created_at >= :since)

-- A step of the index for each host: one name may have several ports.
-- name: hosts_named
WITH RECURSIVE found (host, n) AS (
    SELECT (SELECT MIN(host) FROM task INDEXED BY task_by_host
            WHERE uid = :uid AND host >= :host || ':' AND host < :host || ';'), 1
    UNION ALL
    SELECT (SELECT MIN(host) FROM task INDEXED BY task_by_host
            WHERE uid = :uid AND host > found.host AND host < :host || ';'), n + 1
    FROM found WHERE found.host IS NOT NULL AND n < :limit)
SELECT host FROM found WHERE host IS NOT NULL

-- name: first_added
SELECT id FROM task INDEXED BY task_added WHERE uid = ? AND created_at >= ? ORDER BY created_at, row LIMIT 1

-- name: view
SELECT id, url, name, dest, dir, state, owner, uid, priority, bytes_done, bytes_total, attempts, http_status,
       error_code, error_message, created_at, started_at, finished_at, retry_at, label
FROM task WHERE id = :id AND (:viewer IS NULL OR uid = :viewer)

-- name: views
SELECT id, url, name, dest, dir, state, owner, uid, priority, bytes_done, bytes_total, attempts, http_status,
       error_code, error_message, created_at, started_at, finished_at, retry_at, label
FROM task WHERE id IN (SELECT value FROM json_each(?))
