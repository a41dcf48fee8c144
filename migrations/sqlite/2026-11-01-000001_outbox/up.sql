-- The outbox: an append-only log, its cursors and the messages held back from them.
-- Times are microseconds since 1970 in UTC, by SQLite's own clock.

-- Each migration stamps itself here, whoever runs it (this library, the host's diesel harness, the
-- sqlite3 shell), so there is one record of what the schema is.
CREATE TABLE counterfoil_schema (
    version         TEXT PRIMARY KEY NOT NULL,
    name            TEXT NOT NULL,
    -- The oldest schema version whose code still works with this one.
    compatible_from TEXT NOT NULL,
    applied_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

-- One writer at a time, so the order of seq is the order of commits: no xid is needed.
-- AUTOINCREMENT: a number must not come back after the newest rows were purged.
CREATE TABLE outbox_messages (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    deliver_after INTEGER,
    id            TEXT NOT NULL UNIQUE
                  DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' ||
                           substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' ||
                           hex(randomblob(6))))
                  CONSTRAINT outbox_messages_id_form CHECK (id LIKE '________-____-____-____-____________'
                      AND length(replace(id, '-', '')) = 32 AND replace(id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    kind          TEXT NOT NULL
                  CONSTRAINT outbox_messages_kind_size CHECK (octet_length(kind) BETWEEN 1 AND 255),
    operation     TEXT NOT NULL
                  CONSTRAINT outbox_messages_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    ordering_key  TEXT
                  CONSTRAINT outbox_messages_ordering_key_size CHECK (octet_length(ordering_key) BETWEEN 1 AND 255),
    -- Not empty: the default exchange reaches any queue by name, past bindings and permissions.
    exchange      TEXT NOT NULL DEFAULT 'events'
                  CONSTRAINT outbox_messages_exchange_size CHECK (octet_length(exchange) BETWEEN 1 AND 255),
    -- NULL stands for the kind.
    routing_key   TEXT
                  CONSTRAINT outbox_messages_routing_key_size CHECK (octet_length(routing_key) <= 255),
    content_type  TEXT NOT NULL DEFAULT 'application/json'
                  CONSTRAINT outbox_messages_content_type_size CHECK (octet_length(content_type) BETWEEN 1 AND 255),
    headers       TEXT NOT NULL DEFAULT '{}'
                  CONSTRAINT outbox_messages_headers_object CHECK (json_valid(headers) AND json_type(headers) = 'object')
                  CONSTRAINT outbox_messages_headers_size CHECK (octet_length(headers) <= 65536),
    payload       BLOB NOT NULL
                  CONSTRAINT outbox_messages_payload_size CHECK (octet_length(payload) <= 8388608),
    -- SQLite keeps NUL in text, and pattern matching stops at it: it is looked for on its own.
    CONSTRAINT outbox_messages_no_control_characters CHECK (
        instr(kind || operation || exchange || content_type || coalesce(ordering_key, '') || coalesce(routing_key, ''),
              char(0)) = 0
        AND (kind || operation || exchange || content_type || coalesce(ordering_key, '') || coalesce(routing_key, ''))
            NOT GLOB ('*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'))
) STRICT;

-- One row per reader of the log. Every write of a holder names its epoch.
CREATE TABLE outbox_cursors (
    name        TEXT PRIMARY KEY NOT NULL
                CONSTRAINT outbox_cursors_name_size CHECK (octet_length(name) BETWEEN 1 AND 255),
    -- Invariant: every row with seq <= this seq has been handed on.
    seq         INTEGER NOT NULL DEFAULT 0,
    owner       TEXT,
    epoch       INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    advanced_at INTEGER,
    CONSTRAINT outbox_cursors_lease_both CHECK ((owner IS NULL) = (lease_until IS NULL))
) STRICT;

-- Messages the cursor has passed that are not published: delayed, refused, behind a refused one of
-- the same ordering key, or dead until somebody decides.
CREATE TABLE outbox_holds (
    cursor       TEXT NOT NULL REFERENCES outbox_cursors (name) ON DELETE CASCADE,
    -- No foreign key to the log: it would make every purged row look up this table.
    seq          INTEGER NOT NULL,
    state        TEXT NOT NULL CONSTRAINT outbox_holds_state CHECK (state IN ('waiting', 'dead')),
    reason       TEXT NOT NULL CONSTRAINT outbox_holds_reason CHECK (reason IN
                 ('delayed', 'behind', 'unroutable', 'nacked', 'exchange_missing', 'access_refused', 'refused', 'poison')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    not_before   INTEGER NOT NULL,
    held_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    last_error   TEXT NOT NULL DEFAULT '',
    ordering_key TEXT,
    PRIMARY KEY (cursor, seq)
) STRICT;
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting';
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq) WHERE ordering_key IS NOT NULL;

-- What is committed and not yet handed on, per cursor. For people and tools.
CREATE VIEW outbox_pending AS
SELECT c.name AS cursor, m.seq, m.id, m.kind, m.operation, m.ordering_key, m.exchange,
       coalesce(m.routing_key, m.kind) AS routing_key, m.deliver_after, m.created_at
FROM outbox_cursors c
JOIN outbox_messages m ON m.seq > c.seq;

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261101000001', 'outbox', '20261101000001');
