-- What an administrator has set for a user, beside what users set for themselves; 0 is none.
ALTER TABLE rate_limit ADD COLUMN ceiling_bps INTEGER NOT NULL DEFAULT 0 CHECK (ceiling_bps >= 0);

-- Tasks that only wait for the network, for when it comes back.
CREATE INDEX task_network ON task (id) WHERE state = 'retrying' AND error_code = 'network_down';
