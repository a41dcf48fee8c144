-- What waited for its next attempt or behind another one waits for a decision instead.
DROP TABLE inbox_audit;
DROP TABLE inbox_starts;
DROP INDEX inbox_parked_operation;
DROP INDEX inbox_parked_ahead;
DROP INDEX inbox_parked_behind;
DROP INDEX inbox_parked_key;
DROP INDEX inbox_parked_retry;
DROP INDEX inbox_parked_reason;
ALTER TABLE inbox_parked RENAME TO inbox_parked_after;
CREATE TABLE inbox_parked (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer        TEXT NOT NULL,
    reason          TEXT NOT NULL CONSTRAINT inbox_parked_reason CHECK (reason IN
                    ('undecodable', 'unknown_kind', 'unknown_version', 'no_operation', 'conflict', 'rejected', 'exhausted')),
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
    CONSTRAINT inbox_parked_once UNIQUE (consumer, digest)
) STRICT;
INSERT INTO inbox_parked (id, consumer, reason, detail, attempts, digest, deliveries, message_id, kind, scope, operation,
                          exchange, routing_key, headers, content_type, payload, parked_at, last_parked_at)
SELECT id, consumer,
       CASE WHEN reason IN ('failed', 'hung', 'early', 'behind', 'crashed') THEN 'exhausted'
            WHEN reason IN ('review', 'replay_refused') THEN 'rejected' ELSE reason END,
       detail, attempts, digest, deliveries, message_id, kind, scope, operation,
       exchange, routing_key, headers, content_type, payload, parked_at, last_parked_at
FROM inbox_parked_after;
DROP TABLE inbox_parked_after;
CREATE INDEX inbox_parked_reason ON inbox_parked (consumer, reason, id);
DROP INDEX inbox_operations_age;
ALTER TABLE inbox_operations DROP COLUMN replayed;
ALTER TABLE inbox_operations DROP COLUMN concurrent;
ALTER TABLE inbox_operations DROP COLUMN other_message;
ALTER TABLE inbox_operations DROP COLUMN same_message;
ALTER TABLE inbox_operations DROP COLUMN redelivered;
ALTER TABLE inbox_operations DROP COLUMN result_dropped_at;
ALTER TABLE inbox_operations DROP COLUMN verdict;
ALTER TABLE inbox_operations DROP COLUMN finished_at;
DELETE FROM counterfoil_schema WHERE version = '20261125000001';
