-- What an inbox answers beyond applied and duplicate: parked messages that it tries again by itself or
-- that wait behind one of their key, starts that ended in a crash, stale operations, duplicates by kind.

-- Just before the COMMIT of the first time.
ALTER TABLE inbox_operations ADD COLUMN finished_at INTEGER;
-- NULL: applied. Stale: the event was out of date, and the handler left things as they were.
ALTER TABLE inbox_operations ADD COLUMN verdict TEXT CONSTRAINT inbox_operations_verdict CHECK (verdict IN ('stale'));
-- The key is still known, its result no longer.
ALTER TABLE inbox_operations ADD COLUMN result_dropped_at INTEGER;
-- The duplicates by kind.
ALTER TABLE inbox_operations ADD COLUMN redelivered INTEGER;
ALTER TABLE inbox_operations ADD COLUMN same_message INTEGER;
ALTER TABLE inbox_operations ADD COLUMN other_message INTEGER;
ALTER TABLE inbox_operations ADD COLUMN concurrent INTEGER;
ALTER TABLE inbox_operations ADD COLUMN replayed INTEGER;
-- Retention looks for the oldest.
CREATE INDEX inbox_operations_age ON inbox_operations (consumer, applied_at);

-- SQLite cannot change a CHECK.
DROP INDEX inbox_parked_reason;
ALTER TABLE inbox_parked RENAME TO inbox_parked_before;
CREATE TABLE inbox_parked (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer        TEXT NOT NULL,
    reason          TEXT NOT NULL CONSTRAINT inbox_parked_reason CHECK (reason IN
                    ('undecodable', 'unknown_kind', 'unknown_version', 'no_operation', 'conflict', 'rejected', 'exhausted',
                     'failed', 'hung', 'early', 'review', 'behind', 'crashed', 'replay_refused')),
    detail          TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    -- A delivery that comes again between the commit that parked it and its ack must not be parked
    -- twice; foreign messages may have no id, so the content identifies it.
    digest          BLOB NOT NULL,
    deliveries      INTEGER NOT NULL DEFAULT 1,
    message_id      TEXT,
    kind            TEXT,
    scope           TEXT,
    operation       TEXT,
    exchange        TEXT NOT NULL,
    routing_key     TEXT NOT NULL,
    headers         TEXT NOT NULL,
    content_type    TEXT,
    payload         BLOB NOT NULL,
    parked_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    last_parked_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- The default is what a release before this one means by parking.
    state           TEXT NOT NULL DEFAULT 'review'
                    CONSTRAINT inbox_parked_state CHECK (state IN ('retry', 'behind', 'review')),
    -- When a retry is due, and while one is under way when it is taken for dead.
    not_before      INTEGER,
    ordering_key    TEXT
                    CONSTRAINT inbox_parked_ordering_key_size CHECK (octet_length(ordering_key) BETWEEN 1 AND 255),
    -- Starts since the last one that ended with an answer, and the fence of who started last.
    starts          INTEGER NOT NULL DEFAULT 0,
    epoch           INTEGER NOT NULL DEFAULT 0,
    -- Since when it has been coming before its time.
    early_since     INTEGER,
    -- An operator lets its handler run in spite of a replay's mark.
    forced          INTEGER NOT NULL DEFAULT 0,
    -- When its producer made it, by the `timestamp` property.
    made_at         INTEGER,
    CONSTRAINT inbox_parked_due CHECK ((state = 'retry') = (not_before IS NOT NULL)),
    CONSTRAINT inbox_parked_once UNIQUE (consumer, digest)
) STRICT;
INSERT INTO inbox_parked (id, consumer, reason, detail, attempts, digest, deliveries, message_id, kind, scope, operation,
                          exchange, routing_key, headers, content_type, payload, parked_at, last_parked_at)
SELECT id, consumer, reason, detail, attempts, digest, deliveries, message_id, kind, scope, operation,
       exchange, routing_key, headers, content_type, payload, parked_at, last_parked_at
FROM inbox_parked_before;
DROP TABLE inbox_parked_before;
CREATE INDEX inbox_parked_reason ON inbox_parked (consumer, reason, id);
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
    consumer   TEXT NOT NULL,
    digest     BLOB NOT NULL,
    starts     INTEGER NOT NULL,
    started_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (consumer, digest)
) STRICT, WITHOUT ROWID;

-- What operators decided about parked messages.
CREATE TABLE inbox_audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- Who gave the order, as named by the command. There are no roles here.
    actor    TEXT NOT NULL CONSTRAINT inbox_audit_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role     TEXT NOT NULL DEFAULT '',
    action   TEXT NOT NULL CONSTRAINT inbox_audit_action_size CHECK (octet_length(action) BETWEEN 1 AND 255),
    consumer TEXT NOT NULL,
    reason   TEXT NOT NULL DEFAULT '',
    detail   TEXT NOT NULL DEFAULT '{}'
             CONSTRAINT inbox_audit_detail_object CHECK (json_valid(detail) AND json_type(detail) = 'object')
) STRICT;

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000001', 'inbox_answers', '20261101000001');
