-- Requests under an idempotency key whose handler runs outside a transaction: the claim is committed
-- before it runs, and ends with its reply, or with its lease. Requests whose handler is a transaction
-- are operations like any other and have no row here.

CREATE TABLE inbox_requests (
    consumer     text NOT NULL
                 CONSTRAINT inbox_requests_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope        text NOT NULL
                 CONSTRAINT inbox_requests_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    -- A hash of tenant, principal, method, route and key: none of them stands here in clear.
    operation    text NOT NULL
                 CONSTRAINT inbox_requests_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    fingerprint  bytea NOT NULL
                 CONSTRAINT inbox_requests_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    state        text NOT NULL DEFAULT 'in_progress'
                 CONSTRAINT inbox_requests_state CHECK (state IN ('in_progress', 'completed')),
    -- Who runs the handler, and the how-manieth: every closing write names both.
    owner        text NOT NULL,
    epoch        bigint NOT NULL DEFAULT 1,
    lease_until  timestamptz,
    -- The reply as JSON text, or what says that it was not kept.
    reply        text,
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    PRIMARY KEY (consumer, scope, operation),
    CONSTRAINT inbox_requests_shape CHECK (
        (state = 'in_progress' AND lease_until IS NOT NULL AND reply IS NULL AND completed_at IS NULL)
        OR (state = 'completed' AND lease_until IS NULL AND reply IS NOT NULL AND completed_at IS NOT NULL))
);
-- For the purge, which looks at completed ones only.
CREATE INDEX inbox_requests_age ON inbox_requests (consumer, completed_at) WHERE state = 'completed';

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000002', 'requests', '20261101000001');
