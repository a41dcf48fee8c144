-- What an unattended relay needs: the identity of the cluster, filters, a pause, a record of what
-- operators did, and holds of one key that are found without probing all of them.

ALTER TABLE outbox_cursors
    ADD COLUMN created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whose transaction numbers the snapshot is made of. Written by each claim; NULL until the first.
    ADD COLUMN system_id    text,
    ADD COLUMN timeline     bigint,
    -- NULL: every kind, every exchange. A message must pass both.
    ADD COLUMN kinds        text[]
        CONSTRAINT outbox_cursors_kinds_size CHECK (cardinality(kinds) BETWEEN 1 AND 1000),
    ADD COLUMN exchanges    text[]
        CONSTRAINT outbox_cursors_exchanges_size CHECK (cardinality(exchanges) BETWEEN 1 AND 1000),
    -- Paused by an operator: the holder keeps the lease and hands nothing on.
    ADD COLUMN paused_at    timestamptz,
    ADD COLUMN pause_reason text,
    ADD CONSTRAINT outbox_cursors_identity_both CHECK ((system_id IS NULL) = (timeline IS NULL)),
    ADD CONSTRAINT outbox_cursors_pause_both CHECK ((paused_at IS NULL) = (pause_reason IS NULL));

-- The cursor that a relay moves unless it is told another. Any other is made by `relay cursors add`:
-- a mistyped name would publish the whole log again.
INSERT INTO outbox_cursors (name) VALUES ('relay') ON CONFLICT DO NOTHING;

-- 'released': it waited behind another of its key, which is gone; it has not been tried yet.
ALTER TABLE outbox_holds
    DROP CONSTRAINT outbox_holds_reason,
    ADD CONSTRAINT outbox_holds_reason CHECK (reason IN
        ('delayed', 'behind', 'released', 'unroutable', 'nacked', 'exchange_missing', 'access_refused', 'refused', 'poison'));

-- Only what can come due: a million messages behind one dead head cost the search for due ones nothing.
DROP INDEX outbox_holds_due;
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting' AND reason <> 'behind';
-- What later messages of a key wait behind.
DROP INDEX outbox_holds_key;
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq)
    WHERE ordering_key IS NOT NULL AND reason <> 'delayed';

-- What counts against the bound of a relay. Beside any number of delayed ones.
CREATE INDEX outbox_holds_held ON outbox_holds (cursor) WHERE reason <> 'delayed' AND reason <> 'behind';

-- The first message of a key never waits behind another: when what was in front of it is gone, by
-- whatever hand, or never got there, it comes due.
CREATE FUNCTION outbox_release_first() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- The lock that a relay's writes take first: of two transactions that cross, one sees what the other did.
    PERFORM FROM outbox_cursors c WHERE c.name IN (SELECT touched.cursor FROM touched)
        ORDER BY c.name FOR NO KEY UPDATE;
    UPDATE outbox_holds waiting SET reason = 'released', not_before = clock_timestamp()
    FROM (SELECT DISTINCT touched.cursor, touched.ordering_key FROM touched
          WHERE touched.ordering_key IS NOT NULL AND touched.reason <> 'delayed') key
    WHERE waiting.cursor = key.cursor AND waiting.reason = 'behind' AND waiting.state = 'waiting'
      AND waiting.seq = (SELECT first.seq FROM outbox_holds first
                         WHERE first.cursor = key.cursor AND first.ordering_key = key.ordering_key
                           AND first.ordering_key IS NOT NULL AND first.reason <> 'delayed'
                         ORDER BY first.seq LIMIT 1);
    RETURN NULL;
END
$$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION outbox_release_first() SET search_path = %I, pg_temp', current_schema());
END
$$;
CREATE TRIGGER outbox_holds_release_on_delete AFTER DELETE ON outbox_holds
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION outbox_release_first();
CREATE TRIGGER outbox_holds_release_on_insert AFTER INSERT ON outbox_holds
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION outbox_release_first();

-- What operators changed, with who and why. Written in the transaction of the change.
CREATE TABLE outbox_audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who gave the order, as named by the command; and the role that carried it out.
    actor  text NOT NULL CONSTRAINT outbox_audit_actor_size CHECK (octet_length(actor) BETWEEN 1 AND 255),
    role   text NOT NULL DEFAULT session_user,
    action text NOT NULL CONSTRAINT outbox_audit_action_size CHECK (octet_length(action) BETWEEN 1 AND 255),
    cursor text,
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}' CONSTRAINT outbox_audit_detail_object CHECK (jsonb_typeof(detail) = 'object')
);

-- The log is only inserted into and purged: what makes vacuum worth its while is the purge, and what the
-- planner must know is the newest part of the index on xid. The server's default of a fifth of the
-- table would mean a million rows.
ALTER TABLE outbox_messages SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
-- One row each, updated with every chunk: vacuumed early, so that it stays on its page.
ALTER TABLE outbox_cursors SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
ALTER TABLE outbox_holds SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000);

-- As before, and what a cursor's filter lets pass only.
CREATE OR REPLACE VIEW outbox_pending AS
SELECT c.name AS cursor, m.seq, m.id, m.kind, m.operation, m.ordering_key, m.exchange,
       coalesce(m.routing_key, m.kind) AS routing_key, m.deliver_after, m.created_at
FROM outbox_cursors c
CROSS JOIN LATERAL (
    SELECT * FROM outbox_messages WHERE seq > c.seq
    UNION ALL
    SELECT * FROM outbox_messages
    WHERE seq <= c.seq AND xid = ANY (ARRAY(SELECT pg_snapshot_xip(c.snapshot)))
    UNION ALL
    SELECT * FROM outbox_messages WHERE seq <= c.seq AND xid >= pg_snapshot_xmax(c.snapshot)
) m
WHERE (c.late_snapshot IS NULL
   OR m.seq > c.late_seq
   OR NOT pg_visible_in_snapshot(m.xid, c.late_snapshot))
  AND (c.kinds IS NULL OR m.kind = ANY (c.kinds))
  AND (c.exchanges IS NULL OR m.exchange = ANY (c.exchanges));

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261124000001', 'relay_operations', '20261101000001');
