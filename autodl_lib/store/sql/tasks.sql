-- Statements on tasks; each begins with a line `-- name: NAME`.

-- Each of `rows` is [number, URL, host].
-- name: insert_tasks
INSERT INTO task (id, uid, owner, url, host, dir, output, headers, limit_rate_bps, options, on_conflict,
                  priority, label, state, want, created_at)
SELECT value ->> 0, :uid, :owner, value ->> 1, value ->> 2, :dir, :output, :headers, :limit_rate_bps, :options,
       :on_conflict, :priority, :label, :state, :want, :now
FROM json_each(:rows)

-- name: log_add
INSERT INTO event (task_id, at, event, state, owner_uid, actor_uid, actor, pid, program)
SELECT value, :now, 'add', :state, :uid, :actor_uid, :actor, :pid, :program FROM json_each(:ids)

-- name: task_state
SELECT state, uid, want FROM task WHERE id = ?

-- name: task_states
SELECT id, state, uid FROM task WHERE id IN (SELECT value FROM json_each(?))

-- name: saved_files
SELECT id, dest FROM task WHERE id IN (SELECT value FROM json_each(?)) AND state = 'finished'

-- name: apply
UPDATE task
SET state = :new_state,
    want = COALESCE(:want, want),
    url = CASE WHEN :new_state = 'finished' THEN redact_url(url) ELSE COALESCE(:url, url) END,
    host = COALESCE(:host, host),
    headers = COALESCE(:headers, headers),
    options = COALESCE(:options, options),
    dir = COALESCE(:dir, dir),
    name = COALESCE(:name, name),
    part = CASE WHEN :forget_part THEN NULL ELSE COALESCE(:part, part) END,
    dest = COALESCE(:dest, dest),
    inode = CASE WHEN :keep_identity THEN inode END,
    part_size_bytes = CASE WHEN :keep_identity THEN part_size_bytes END,
    mtime_ns = CASE WHEN :keep_identity THEN mtime_ns END,
    bytes_done = COALESCE(:bytes_done, bytes_done),
    bytes_total = COALESCE(:bytes_total, bytes_total),
    attempts = attempts + :attempts,
    streak = COALESCE(:streak, streak),
    stuck_since = CASE WHEN :keep_stuck THEN COALESCE(:stuck_since, stuck_since) ELSE :stuck_since END,
    http_status = COALESCE(:http_status, http_status),
    error_code = CASE WHEN :keep_error THEN error_code ELSE :error_code END,
    error_message = CASE WHEN :keep_error THEN error_message ELSE :error_message END,
    retry_at = :retry_at,
    started_at = COALESCE(:started_at, started_at),
    finished_at = :finished_at
WHERE id = :id AND state = :old_state

-- The same for many tasks, of which nothing else is known: an index on what is not named here stays as it is.
-- name: apply_all
UPDATE task
SET state = :new_state,
    want = COALESCE(:want, want),
    inode = CASE WHEN :keep_identity THEN inode END,
    part_size_bytes = CASE WHEN :keep_identity THEN part_size_bytes END,
    mtime_ns = CASE WHEN :keep_identity THEN mtime_ns END,
    streak = COALESCE(:streak, streak),
    stuck_since = CASE WHEN :keep_stuck THEN stuck_since END,
    error_code = CASE WHEN :keep_error THEN error_code END,
    error_message = CASE WHEN :keep_error THEN error_message END,
    retry_at = NULL,
    finished_at = :finished_at
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = :old_state

-- Files that have their final names. Each of `rows` is [number, path, name, size, began, detail, uid]. A row is made into
-- text once, not for each of its values; and only where there may be something to redact, the interpreter is called.
-- name: finish_all
WITH done AS MATERIALIZED (SELECT value FROM json_each(:rows))
UPDATE task
SET state = 'finished',
    url = CASE WHEN INSTR(url, '@') THEN redact_url(url) ELSE url END, headers = '[]', options = '{}',
    name = COALESCE(done.value ->> 2, name), part = NULL, dest = done.value ->> 1,
    inode = NULL, part_size_bytes = NULL, mtime_ns = NULL,
    bytes_done = done.value ->> 3, bytes_total = done.value ->> 3,
    attempts = attempts + :attempts, streak = 0, stuck_since = NULL,
    error_code = NULL, error_message = NULL, retry_at = NULL,
    started_at = CASE WHEN :old_state = 'enqueued' THEN done.value ->> 4 ELSE started_at END, finished_at = :now
FROM done
WHERE task.id = done.value ->> 0 AND task.state = :old_state

-- name: log_starts
INSERT INTO event (task_id, at, event, state)
SELECT value ->> 0, :now, 'start', 'downloading' FROM json_each(:rows)

-- name: log_finishes
INSERT INTO event (task_id, at, event, state, detail, owner_uid)
SELECT value ->> 0, :now, 'finish', 'finished', value ->> 5, value ->> 6 FROM json_each(:rows)

-- Each of `rows` is [number, name, part, bytes, size, response code, whether there is progress, inode, size of the
-- part, its time].
-- name: describe
WITH known AS MATERIALIZED (SELECT value FROM json_each(?))
UPDATE task
SET name = known.value ->> 1, part = known.value ->> 2,
    bytes_done = known.value ->> 3, bytes_total = COALESCE(known.value ->> 4, bytes_total),
    http_status = COALESCE(known.value ->> 5, http_status),
    streak = CASE WHEN known.value ->> 6 THEN 0 ELSE streak END,
    stuck_since = CASE WHEN known.value ->> 6 THEN NULL ELSE stuck_since END,
    inode = known.value ->> 7, part_size_bytes = known.value ->> 8, mtime_ns = known.value ->> 9
FROM known
WHERE task.id = known.value ->> 0 AND task.state IN ('enqueued', 'downloading')

-- name: set_want
UPDATE task SET want = ? WHERE id = ?

-- name: set_priority
UPDATE task SET priority = ? WHERE id = ?

-- name: set_limit_rate
UPDATE task SET limit_rate_bps = ? WHERE id = ?

-- name: limit_rates
SELECT id, limit_rate_bps FROM task WHERE id IN (SELECT value FROM json_each(?))

-- name: forget_part
UPDATE task SET part = NULL, inode = NULL, part_size_bytes = NULL, mtime_ns = NULL, bytes_done = 0 WHERE id = ?

-- name: last_clearable
SELECT MAX(COALESCE((SELECT MAX(id) FROM task INDEXED BY task_by_state WHERE uid = :uid AND state = 'enqueued'), 0),
           COALESCE((SELECT MAX(id) FROM task INDEXED BY task_by_state WHERE uid = :uid AND state = 'retrying'), 0))

-- name: clearable
SELECT id FROM task INDEXED BY task_waiting
WHERE uid = :uid AND state = 'enqueued' AND id <= :last AND id NOT IN (SELECT value FROM json_each(:leased))
ORDER BY priority DESC, id LIMIT :limit

-- name: clearable_retrying
SELECT id FROM task INDEXED BY task_by_state
WHERE uid = :uid AND state = 'retrying' AND id <= :last AND id NOT IN (SELECT value FROM json_each(:leased))
ORDER BY id LIMIT :limit

-- name: due_tasks
SELECT id FROM (SELECT id FROM task INDEXED BY task_due
                WHERE state = 'retrying' AND retry_at <= :now ORDER BY retry_at LIMIT :limit)
UNION ALL
SELECT id FROM (SELECT id FROM task INDEXED BY task_due
                WHERE state = 'retrying' AND retry_at > :latest ORDER BY retry_at LIMIT :limit)

-- name: waiting_for_network
SELECT id FROM task INDEXED BY task_network WHERE state = 'retrying' AND error_code = 'network_down' LIMIT ?

-- name: next_due
SELECT MIN(retry_at) FROM task WHERE state = 'retrying'

-- name: downloading_tasks
SELECT id, want FROM task WHERE state = 'downloading'

-- name: unwanted_tasks
SELECT id, want FROM task WHERE want <> 'run' AND state IN ('enqueued', 'downloading')

-- name: settled_before
SELECT id, uid, state, part FROM task
WHERE finished_at < ? AND (part IS NULL OR state = 'failed') ORDER BY finished_at LIMIT ?

-- The newest of a user's settled tasks that are too many.
-- name: settled_too_many
SELECT finished_at, row FROM task WHERE uid = ? AND finished_at IS NOT NULL
ORDER BY finished_at DESC, row DESC LIMIT 1 OFFSET ?

-- Many are settled in one moment: which of them came first, their row tells.
-- name: settled_of_before
SELECT id, uid, state, part FROM task
WHERE uid = :uid AND finished_at <= :at AND (finished_at < :at OR row <= :row) AND (part IS NULL OR state = 'failed')
ORDER BY finished_at, row LIMIT :limit

-- name: delete_tasks
DELETE FROM task WHERE id IN (SELECT value FROM json_each(?))

-- name: count_by_state
SELECT uid, state, COUNT(*) FROM task GROUP BY uid, state

-- name: waiting
SELECT * FROM (SELECT -priority, id, host, dir FROM task INDEXED BY task_waiting
               WHERE uid = :uid AND state = 'enqueued' AND want = 'run' AND priority = :priority AND id > :id
               ORDER BY id LIMIT :limit)
UNION ALL
SELECT * FROM (SELECT -priority, id, host, dir FROM task INDEXED BY task_waiting
               WHERE uid = :uid AND state = 'enqueued' AND want = 'run' AND priority < :priority
               ORDER BY priority DESC, id LIMIT :limit)
LIMIT :limit

-- A step of the index for each host, not for each task.
-- name: waiting_heads
WITH RECURSIVE found (host, n) AS (
    SELECT (SELECT MIN(host) FROM task INDEXED BY task_waiting_host WHERE uid = :uid AND state = 'enqueued'), 1
    UNION ALL
    SELECT (SELECT MIN(host) FROM task INDEXED BY task_waiting_host
            WHERE uid = :uid AND state = 'enqueued' AND host > found.host), n + 1
    FROM found WHERE found.host IS NOT NULL AND n < :limit)
SELECT -priority, id, task.host, dir FROM found CROSS JOIN task ON task.id = (
    SELECT id FROM task AS head INDEXED BY task_waiting_host
    WHERE uid = :uid AND head.host = found.host AND state = 'enqueued' AND want = 'run'
    ORDER BY priority DESC, id LIMIT 1)
WHERE found.host IS NOT NULL

-- name: waiting_at
SELECT -priority, id, host, dir FROM task INDEXED BY task_waiting_host
WHERE uid = ? AND host = ? AND state = 'enqueued' AND want = 'run' ORDER BY priority DESC, id LIMIT ? OFFSET ?

-- name: waiting_before
SELECT COUNT(*) FROM (
    SELECT 1 FROM task INDEXED BY task_waiting WHERE uid = :uid AND state = 'enqueued' AND priority > :priority
    UNION ALL
    SELECT 1 FROM task INDEXED BY task_waiting
    WHERE uid = :uid AND state = 'enqueued' AND priority = :priority AND id < :id
    LIMIT 10000)

-- name: leftovers
SELECT uid, id, dir, part FROM task
WHERE part IS NOT NULL AND state IN ('cancelled', 'cleared') AND (uid, id) > (?, ?) ORDER BY uid, id LIMIT ?

-- name: specs
SELECT id, uid, url, dir, output, headers, limit_rate_bps, on_conflict, name, part, inode, part_size_bytes, mtime_ns,
       bytes_done, streak, host, options, stuck_since, created_at
FROM task WHERE id IN (SELECT value FROM json_each(:ids)) AND (NOT :waiting OR (state = 'enqueued' AND want = 'run'))
