-- Requests under an idempotency key whose handler runs outside a transaction: the claim is committed
-- before it runs, and ends with its reply, or with its lease. Requests whose handler is a transaction
-- are operations like any other and have no row here.

CREATE TABLE inbox_requests (
    consumer     TEXT NOT NULL
                 CONSTRAINT inbox_requests_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope        TEXT NOT NULL
                 CONSTRAINT inbox_requests_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    -- A hash of tenant, principal, method, route and key: none of them stands here in clear.
    operation    TEXT NOT NULL
                 CONSTRAINT inbox_requests_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    fingerprint  BLOB NOT NULL
                 CONSTRAINT inbox_requests_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    state        TEXT NOT NULL DEFAULT 'in_progress'
                 CONSTRAINT inbox_requests_state CHECK (state IN ('in_progress', 'completed')),
    -- Who runs the handler, and the how-manieth: every closing write names both.
    owner        TEXT NOT NULL,
    epoch        INTEGER NOT NULL DEFAULT 1,
    lease_until  INTEGER,
    -- The reply as JSON text, or what says that it was not kept.
    reply        TEXT,
    begun_at     INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    completed_at INTEGER,
    PRIMARY KEY (consumer, scope, operation),
    CONSTRAINT inbox_requests_shape CHECK (
        (state = 'in_progress' AND lease_until IS NOT NULL AND reply IS NULL AND completed_at IS NULL)
        OR (state = 'completed' AND lease_until IS NULL AND reply IS NOT NULL AND completed_at IS NOT NULL))
) STRICT;
-- For the purge, which looks at completed ones only.
CREATE INDEX inbox_requests_age ON inbox_requests (consumer, completed_at) WHERE state = 'completed';

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000002', 'requests', '20261101000001');
