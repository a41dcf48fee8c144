-- What an unattended relay needs: filters, a pause, a record of what operators did, and holds of one
-- key that are found without probing all of them. A file has no identity of its own, and its cursor
-- needs none: seq order is commit order in every copy.

-- No default that is an expression in ADD COLUMN here; the migration's own time stands in.
ALTER TABLE outbox_cursors ADD COLUMN created_at INTEGER;
UPDATE outbox_cursors SET created_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER);
-- NULL: every kind, every exchange; else a JSON array of names. A message must pass both.
ALTER TABLE outbox_cursors ADD COLUMN kinds TEXT
    CONSTRAINT outbox_cursors_kinds_size CHECK (json_valid(kinds) AND json_type(kinds) = 'array' AND json_array_length(kinds) BETWEEN 1 AND 1000);
ALTER TABLE outbox_cursors ADD COLUMN exchanges TEXT
    CONSTRAINT outbox_cursors_exchanges_size CHECK (json_valid(exchanges) AND json_type(exchanges) = 'array' AND json_array_length(exchanges) BETWEEN 1 AND 1000);
-- Paused by an operator: the holder keeps the lease and hands nothing on.
ALTER TABLE outbox_cursors ADD COLUMN paused_at INTEGER;
ALTER TABLE outbox_cursors ADD COLUMN pause_reason TEXT
    CONSTRAINT outbox_cursors_pause_both CHECK ((paused_at IS NULL) = (pause_reason IS NULL));

-- The cursor that a relay moves unless it is told another. Any other is made by `relay cursors add`:
-- a mistyped name would publish the whole log again.
INSERT INTO outbox_cursors (name, created_at) VALUES ('relay', CAST(unixepoch('subsec') * 1000000 AS INTEGER))
ON CONFLICT DO NOTHING;

-- A CHECK cannot be changed in place.
ALTER TABLE outbox_holds RENAME TO outbox_holds_before;
DROP INDEX outbox_holds_due;
DROP INDEX outbox_holds_key;
CREATE TABLE outbox_holds (
    cursor       TEXT NOT NULL REFERENCES outbox_cursors (name) ON DELETE CASCADE,
    -- No foreign key to the log: it would make every purged row look up this table.
    seq          INTEGER NOT NULL,
    state        TEXT NOT NULL CONSTRAINT outbox_holds_state CHECK (state IN ('waiting', 'dead')),
    -- 'released': it waited behind another of its key, which is gone; it has not been tried yet.
    reason       TEXT NOT NULL CONSTRAINT outbox_holds_reason CHECK (reason IN
                 ('delayed', 'behind', 'released', 'unroutable', 'nacked', 'exchange_missing', 'access_refused', 'refused', 'poison')),
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

-- Only what can come due: a million messages behind one dead head cost the search for due ones nothing.
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting' AND reason <> 'behind';
-- What later messages of a key wait behind.
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq)
    WHERE ordering_key IS NOT NULL AND reason <> 'delayed';

-- What counts against the bound of a relay. Beside any number of delayed ones.
CREATE INDEX outbox_holds_held ON outbox_holds (cursor) WHERE reason <> 'delayed' AND reason <> 'behind';

-- The first message of a key never waits behind another: when what was in front of it is gone, by
-- whatever hand, or never got there, it comes due.
CREATE TRIGGER outbox_holds_release_on_delete AFTER DELETE ON outbox_holds
WHEN OLD.ordering_key IS NOT NULL AND OLD.reason <> 'delayed'
BEGIN
    UPDATE outbox_holds SET reason = 'released', not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    WHERE cursor = OLD.cursor AND reason = 'behind' AND state = 'waiting'
      AND seq = (SELECT first.seq FROM outbox_holds first
                 WHERE first.cursor = OLD.cursor AND first.ordering_key = OLD.ordering_key
                   AND first.ordering_key IS NOT NULL AND first.reason <> 'delayed'
                 ORDER BY first.seq LIMIT 1);
END;
CREATE TRIGGER outbox_holds_release_on_insert AFTER INSERT ON outbox_holds
WHEN NEW.ordering_key IS NOT NULL AND NEW.reason = 'behind'
BEGIN
    UPDATE outbox_holds SET reason = 'released', not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    WHERE cursor = NEW.cursor AND reason = 'behind' AND state = 'waiting'
      AND seq = (SELECT first.seq FROM outbox_holds first
                 WHERE first.cursor = NEW.cursor AND first.ordering_key = NEW.ordering_key
                   AND first.ordering_key IS NOT NULL AND first.reason <> 'delayed'
                 ORDER BY first.seq LIMIT 1);
END;

-- What operators changed, with who and why. Written in the transaction of the change.
CREATE TABLE outbox_audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- Who gave the order, as named by the command. There are no roles here.
    actor  TEXT NOT NULL CONSTRAINT outbox_audit_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role   TEXT NOT NULL DEFAULT '',
    action TEXT NOT NULL CONSTRAINT outbox_audit_action_size CHECK (octet_length(action) BETWEEN 1 AND 255),
    cursor TEXT,
    reason TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '{}'
           CONSTRAINT outbox_audit_detail_object CHECK (json_valid(detail) AND json_type(detail) = 'object')
) STRICT;

-- As before, and what a cursor's filter lets pass only.
DROP VIEW outbox_pending;
CREATE VIEW outbox_pending AS
SELECT c.name AS cursor, m.seq, m.id, m.kind, m.operation, m.ordering_key, m.exchange,
       coalesce(m.routing_key, m.kind) AS routing_key, m.deliver_after, m.created_at
FROM outbox_cursors c
JOIN outbox_messages m ON m.seq > c.seq
WHERE (c.kinds IS NULL OR EXISTS (SELECT 1 FROM json_each(c.kinds) WHERE value = m.kind))
  AND (c.exchanges IS NULL OR EXISTS (SELECT 1 FROM json_each(c.exchanges) WHERE value = m.exchange));

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261124000001', 'relay_operations', '20261101000001');
