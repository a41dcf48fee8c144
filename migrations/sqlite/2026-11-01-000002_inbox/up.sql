-- The inbox: what has been applied, and what could not be.
-- Times are microseconds since 1970 in UTC, by SQLite's own clock.

-- One row per business operation and consumer, written in the handler's own transaction. The
-- primary key is the guarantee.
CREATE TABLE inbox_operations (
    consumer          TEXT NOT NULL
                      CONSTRAINT inbox_operations_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope             TEXT NOT NULL
                      CONSTRAINT inbox_operations_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    operation         TEXT NOT NULL
                      CONSTRAINT inbox_operations_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    fingerprint       BLOB NOT NULL
                      CONSTRAINT inbox_operations_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    -- The message that was applied first; NULL for an operation that came without one.
    message_id        TEXT,
    -- The handler's answer as JSON text, given to every duplicate; NULL stands for null.
    result            TEXT,
    applied_at        INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    duplicates        INTEGER NOT NULL DEFAULT 0,
    last_duplicate_at INTEGER,
    conflicts         INTEGER NOT NULL DEFAULT 0,
    last_conflict_at  INTEGER,
    PRIMARY KEY (consumer, scope, operation)
) STRICT, WITHOUT ROWID;

-- Deliveries that were acknowledged without being applied, whole, until somebody decides.
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
CREATE INDEX inbox_parked_reason ON inbox_parked (consumer, reason, id);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261101000002', 'inbox', '20261101000001');
