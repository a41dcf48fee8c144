-- Filters, pauses, identities and the audit are gone; messages held and cursors stay.
ALTER TABLE outbox_messages RESET (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold);
ALTER TABLE outbox_cursors RESET (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold);
ALTER TABLE outbox_holds RESET (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold);
DROP TABLE outbox_audit;
DROP TRIGGER outbox_holds_release_on_insert ON outbox_holds;
DROP TRIGGER outbox_holds_release_on_delete ON outbox_holds;
DROP FUNCTION outbox_release_first();
DROP INDEX outbox_holds_held;
DROP INDEX outbox_holds_due;
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting';
DROP INDEX outbox_holds_key;
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq) WHERE ordering_key IS NOT NULL;
UPDATE outbox_holds SET reason = 'behind' WHERE reason = 'released';
ALTER TABLE outbox_holds
    DROP CONSTRAINT outbox_holds_reason,
    ADD CONSTRAINT outbox_holds_reason CHECK (reason IN
        ('delayed', 'behind', 'unroutable', 'nacked', 'exchange_missing', 'access_refused', 'refused', 'poison'));
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
WHERE c.late_snapshot IS NULL
   OR m.seq > c.late_seq
   OR NOT pg_visible_in_snapshot(m.xid, c.late_snapshot);
ALTER TABLE outbox_cursors
    DROP COLUMN created_at, DROP COLUMN system_id, DROP COLUMN timeline, DROP COLUMN kinds,
    DROP COLUMN exchanges, DROP COLUMN paused_at, DROP COLUMN pause_reason;
DELETE FROM counterfoil_schema WHERE version = '20261124000001';
