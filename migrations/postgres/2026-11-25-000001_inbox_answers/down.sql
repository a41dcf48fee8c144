-- What waited for its next attempt or behind another one waits for a decision instead.
ALTER TABLE inbox_parked RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
DROP TABLE inbox_audit;
DROP TABLE inbox_starts;
DROP INDEX inbox_parked_operation;
DROP INDEX inbox_parked_ahead;
DROP INDEX inbox_parked_behind;
DROP INDEX inbox_parked_key;
DROP INDEX inbox_parked_retry;
UPDATE inbox_parked SET reason = 'exhausted' WHERE reason IN ('failed', 'hung', 'early', 'behind', 'crashed');
UPDATE inbox_parked SET reason = 'rejected' WHERE reason IN ('review', 'replay_refused');
ALTER TABLE inbox_parked
    DROP COLUMN made_at,
    DROP COLUMN forced,
    DROP COLUMN early_since,
    DROP COLUMN epoch,
    DROP COLUMN starts,
    DROP COLUMN ordering_key,
    DROP COLUMN not_before,
    DROP COLUMN state,
    DROP CONSTRAINT inbox_parked_reason,
    ADD CONSTRAINT inbox_parked_reason CHECK (reason IN
        ('undecodable', 'unknown_kind', 'unknown_version', 'no_operation', 'conflict', 'rejected', 'exhausted'));
DROP INDEX inbox_operations_age;
ALTER TABLE inbox_operations
    DROP COLUMN replayed,
    DROP COLUMN concurrent,
    DROP COLUMN other_message,
    DROP COLUMN same_message,
    DROP COLUMN redelivered,
    DROP COLUMN result_dropped_at,
    DROP COLUMN verdict,
    DROP COLUMN finished_at;
DELETE FROM counterfoil_schema WHERE version = '20261125000001';
