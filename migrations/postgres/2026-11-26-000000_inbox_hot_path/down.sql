DROP INDEX inbox_operations_age;
CREATE INDEX inbox_operations_age ON inbox_operations (consumer, applied_at);
ALTER TABLE inbox_operations
    ADD CONSTRAINT inbox_operations_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    ADD CONSTRAINT inbox_operations_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    ADD CONSTRAINT inbox_operations_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    ADD CONSTRAINT inbox_operations_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    ADD CONSTRAINT inbox_operations_verdict CHECK (verdict IN ('stale'));
DELETE FROM counterfoil_schema WHERE version = '20261126000000';
