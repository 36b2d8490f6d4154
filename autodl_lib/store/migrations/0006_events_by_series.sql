-- A user's task numbers end in the same three digits (store/numbering.py): so sorted, the events of what a user adds at
-- once lie together, where by the numbers alone they would touch a page each.
DROP INDEX event_by_task;
CREATE INDEX event_by_task ON event (task_id % 1000, task_id, id);
