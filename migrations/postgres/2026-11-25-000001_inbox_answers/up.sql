-- What an inbox answers beyond applied and duplicate: parked messages that it tries again by itself or
-- that wait behind one of their key, starts that ended in a crash, stale operations, duplicates by kind.

ALTER TABLE inbox_operations
    -- Just before the COMMIT of the first time. A transaction that began before then was concurrent.
    ADD COLUMN finished_at       timestamptz,
    -- NULL: applied. Stale: the event was out of date, and the handler left things as they were.
    ADD COLUMN verdict           text CONSTRAINT inbox_operations_verdict CHECK (verdict IN ('stale')),
    -- The key is still known, its result no longer.
    ADD COLUMN result_dropped_at timestamptz,
    -- The duplicates by kind. NULL instead of 0, which costs a row that never came again nothing.
    ADD COLUMN redelivered       bigint,
    ADD COLUMN same_message      bigint,
    ADD COLUMN other_message     bigint,
    ADD COLUMN concurrent        bigint,
    ADD COLUMN replayed          bigint;
-- Retention looks for the oldest.
CREATE INDEX inbox_operations_age ON inbox_operations (consumer, applied_at);

ALTER TABLE inbox_parked
    DROP CONSTRAINT inbox_parked_reason,
    ADD CONSTRAINT inbox_parked_reason CHECK (reason IN
        ('undecodable', 'unknown_kind', 'unknown_version', 'no_operation', 'conflict', 'rejected', 'exhausted',
         'failed', 'hung', 'early', 'review', 'behind', 'crashed', 'replay_refused')),
    -- The default is what a release before this one means by parking.
    ADD COLUMN state         text NOT NULL DEFAULT 'review'
                             CONSTRAINT inbox_parked_state CHECK (state IN ('retry', 'behind', 'review')),
    -- When a retry is due, and while one is under way when it is taken for dead.
    ADD COLUMN not_before    timestamptz,
    ADD COLUMN ordering_key  text
                             CONSTRAINT inbox_parked_ordering_key_size CHECK (octet_length(ordering_key) BETWEEN 1 AND 255),
    -- Starts since the last one that ended with an answer, and the fence of who started last.
    ADD COLUMN starts        integer NOT NULL DEFAULT 0,
    ADD COLUMN epoch         bigint NOT NULL DEFAULT 0,
    -- Since when it has been coming before its time.
    ADD COLUMN early_since   timestamptz,
    -- An operator lets its handler run in spite of a replay's mark.
    ADD COLUMN forced        boolean NOT NULL DEFAULT false,
    -- When its producer made it, by the `timestamp` property.
    ADD COLUMN made_at       timestamptz,
    ADD CONSTRAINT inbox_parked_due CHECK ((state = 'retry') = (not_before IS NOT NULL));
CREATE INDEX inbox_parked_retry ON inbox_parked (consumer, not_before) WHERE state = 'retry';
CREATE INDEX inbox_parked_key ON inbox_parked (consumer, ordering_key, id) WHERE ordering_key IS NOT NULL;
-- The first of a key that waits, and what it waits for, without reading the thousands in between.
CREATE INDEX inbox_parked_behind ON inbox_parked (consumer, ordering_key, id) WHERE state = 'behind';
CREATE INDEX inbox_parked_ahead ON inbox_parked (consumer, ordering_key) WHERE state <> 'behind' AND ordering_key IS NOT NULL;
-- Retention keeps an operation of which a message is parked.
CREATE INDEX inbox_parked_operation ON inbox_parked (consumer, scope, operation) WHERE scope IS NOT NULL;

-- Starts of redelivered messages, committed before the handler runs: a message that kills its process
-- leaves nothing else behind. A first delivery writes none.
CREATE TABLE inbox_starts (
    consumer   text NOT NULL,
    digest     bytea NOT NULL,
    starts     integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, digest)
);

-- What operators decided about parked messages. Nobody changes a line.
CREATE TABLE inbox_audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who gave the order, as named by the command; and the role that carried it out.
    actor    text NOT NULL CONSTRAINT inbox_audit_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role     text NOT NULL DEFAULT session_user,
    action   text NOT NULL CONSTRAINT inbox_audit_action_size CHECK (octet_length(action) BETWEEN 1 AND 255),
    consumer text NOT NULL,
    reason   text NOT NULL DEFAULT '',
    detail   jsonb NOT NULL DEFAULT '{}' CONSTRAINT inbox_audit_detail_object CHECK (jsonb_typeof(detail) = 'object')
);

-- Parked rows are rewritten at each attempt, and a start is written and deleted: both stay small only
-- if what is dead goes soon.
ALTER TABLE inbox_parked SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
ALTER TABLE inbox_starts SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000001', 'inbox_answers', '20261101000001');
