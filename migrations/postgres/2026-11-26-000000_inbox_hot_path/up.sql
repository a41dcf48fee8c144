-- What every message pays for in inbox_operations, and what it need not.

ALTER TABLE inbox_operations
    -- The server reads the text of each of these anew for every INSERT and UPDATE: a sixth of what it does for
    -- a message. The library checks the same before it sends anything, and nobody else writes here.
    DROP CONSTRAINT inbox_operations_consumer_size,
    DROP CONSTRAINT inbox_operations_scope_size,
    DROP CONSTRAINT inbox_operations_operation_size,
    DROP CONSTRAINT inbox_operations_fingerprint_size,
    DROP CONSTRAINT inbox_operations_verdict;

-- Under a collation that only retention asks for. Under the column's own the planner took this index for looking
-- up a single operation of a table without statistics (it is the smaller one), walked all operations of the
-- consumer for each message, and kept to it until the first ANALYZE.
DROP INDEX inbox_operations_age;
CREATE INDEX inbox_operations_age ON inbox_operations (consumer COLLATE "C", applied_at);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000000', 'inbox_hot_path', '20261101000001');
