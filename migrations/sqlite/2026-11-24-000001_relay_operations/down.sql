-- Filters, pauses and the audit are gone; messages held and cursors stay.
DROP TABLE outbox_audit;
DROP TRIGGER outbox_holds_release_on_insert;
DROP TRIGGER outbox_holds_release_on_delete;
UPDATE outbox_holds SET reason = 'behind' WHERE reason = 'released';
ALTER TABLE outbox_holds RENAME TO outbox_holds_before;
DROP INDEX outbox_holds_held;
DROP INDEX outbox_holds_due;
DROP INDEX outbox_holds_key;
CREATE TABLE outbox_holds (
    cursor       TEXT NOT NULL REFERENCES outbox_cursors (name) ON DELETE CASCADE,
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
INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, held_at, last_error, ordering_key)
SELECT cursor, seq, state, reason, attempts, not_before, held_at, last_error, ordering_key FROM outbox_holds_before;
DROP TABLE outbox_holds_before;
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting';
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq) WHERE ordering_key IS NOT NULL;
DROP VIEW outbox_pending;
CREATE VIEW outbox_pending AS
SELECT c.name AS cursor, m.seq, m.id, m.kind, m.operation, m.ordering_key, m.exchange,
       coalesce(m.routing_key, m.kind) AS routing_key, m.deliver_after, m.created_at
FROM outbox_cursors c
JOIN outbox_messages m ON m.seq > c.seq;
ALTER TABLE outbox_cursors DROP COLUMN pause_reason;
ALTER TABLE outbox_cursors DROP COLUMN paused_at;
ALTER TABLE outbox_cursors DROP COLUMN exchanges;
ALTER TABLE outbox_cursors DROP COLUMN kinds;
ALTER TABLE outbox_cursors DROP COLUMN created_at;
DELETE FROM counterfoil_schema WHERE version = '20261124000001';
