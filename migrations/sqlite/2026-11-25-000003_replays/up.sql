-- Replays of kept history to one consumer: what was asked for, who and why, and how far it has come.

CREATE TABLE outbox_replays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer    TEXT NOT NULL CONSTRAINT outbox_replays_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    queue       TEXT NOT NULL CONSTRAINT outbox_replays_queue_size CHECK (octet_length(queue) BETWEEN 1 AND 255),
    -- Whether the consumer's handlers with side effects may run.
    forced      INTEGER NOT NULL DEFAULT 0,
    selection   TEXT NOT NULL
                CONSTRAINT outbox_replays_selection_object CHECK (json_valid(selection) AND json_type(selection) = 'object'),
    -- Messages a second.
    rate        INTEGER NOT NULL CONSTRAINT outbox_replays_rate CHECK (rate >= 1),
    -- The first row the log had at the start: what came before was deleted.
    first_kept  INTEGER NOT NULL,
    -- Counted at the start.
    total       INTEGER NOT NULL,
    sent        INTEGER NOT NULL DEFAULT 0,
    -- Rows that no broker takes, as they were when they were new.
    unsendable  INTEGER NOT NULL DEFAULT 0,
    -- Everything selected up to here is settled. The end is fixed at the start.
    position    INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    state       TEXT NOT NULL DEFAULT 'running'
                CONSTRAINT outbox_replays_state CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    last_error  TEXT NOT NULL DEFAULT '',
    -- Who works on it. Every write of a holder names its epoch.
    owner       TEXT,
    epoch       INTEGER NOT NULL DEFAULT 1,
    lease_until INTEGER,
    -- Who gave the order, as named by the command. There are no roles here.
    actor       TEXT NOT NULL CONSTRAINT outbox_replays_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role        TEXT NOT NULL DEFAULT '',
    reason      TEXT NOT NULL,
    started_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    finished_at INTEGER,
    CONSTRAINT outbox_replays_lease_both CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT outbox_replays_held_while_running CHECK (owner IS NULL OR state = 'running'),
    CONSTRAINT outbox_replays_finished CHECK ((state = 'running') = (finished_at IS NULL))
) STRICT;

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000003', 'replays', '20261101000001');
