-- Replays of kept history to one consumer: what was asked for, who and why, and how far it has come.

CREATE TABLE outbox_replays (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer    text NOT NULL CONSTRAINT outbox_replays_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    queue       text NOT NULL CONSTRAINT outbox_replays_queue_size CHECK (octet_length(queue) BETWEEN 1 AND 255),
    -- Whether the consumer's handlers with side effects may run.
    forced      boolean NOT NULL DEFAULT false,
    selection   jsonb NOT NULL CONSTRAINT outbox_replays_selection_object CHECK (jsonb_typeof(selection) = 'object'),
    -- Messages a second.
    rate        integer NOT NULL CONSTRAINT outbox_replays_rate CHECK (rate >= 1),
    -- The first row the log had at the start: what came before was deleted.
    first_kept  bigint NOT NULL,
    -- Counted at the start.
    total       bigint NOT NULL,
    sent        bigint NOT NULL DEFAULT 0,
    -- Rows that no broker takes, as they were when they were new.
    unsendable  bigint NOT NULL DEFAULT 0,
    -- Everything selected up to here is settled. The end is fixed at the start.
    position    bigint NOT NULL,
    last_seq    bigint NOT NULL,
    state       text NOT NULL DEFAULT 'running'
                CONSTRAINT outbox_replays_state CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    last_error  text NOT NULL DEFAULT '',
    -- Who works on it. Every write of a holder names its epoch.
    owner       text,
    epoch       bigint NOT NULL DEFAULT 1,
    lease_until timestamptz,
    -- Who gave the order, as named by the command; and the role that carried it out.
    actor       text NOT NULL CONSTRAINT outbox_replays_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role        text NOT NULL DEFAULT session_user,
    reason      text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT outbox_replays_lease_both CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT outbox_replays_held_while_running CHECK (owner IS NULL OR state = 'running'),
    CONSTRAINT outbox_replays_finished CHECK ((state = 'running') = (finished_at IS NULL))
) WITH (fillfactor = 70);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000003', 'replays', '20261101000001');
