-- The inbox: what has been applied, and what could not be.

-- One row per business operation and consumer, written in the handler's own transaction. The
-- primary key is the guarantee.
CREATE TABLE inbox_operations (
    consumer          text NOT NULL
                      CONSTRAINT inbox_operations_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope             text NOT NULL
                      CONSTRAINT inbox_operations_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    operation         text NOT NULL
                      CONSTRAINT inbox_operations_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    fingerprint       bytea NOT NULL
                      CONSTRAINT inbox_operations_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    -- The message that was applied first; NULL for an operation that came without one.
    message_id        text,
    -- The handler's answer as JSON text, given to every duplicate; NULL stands for null. Text and not
    -- jsonb, so that the very same bytes come back.
    result            text,
    applied_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    duplicates        bigint NOT NULL DEFAULT 0,
    last_duplicate_at timestamptz,
    conflicts         bigint NOT NULL DEFAULT 0,
    last_conflict_at  timestamptz,
    PRIMARY KEY (consumer, scope, operation)
);

-- Deliveries that were acknowledged without being applied, whole, until somebody decides.
CREATE TABLE inbox_parked (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer        text NOT NULL,
    reason          text NOT NULL CONSTRAINT inbox_parked_reason CHECK (reason IN
                    ('undecodable', 'unknown_kind', 'unknown_version', 'no_operation', 'conflict', 'rejected', 'exhausted')),
    detail          text NOT NULL,
    attempts        integer NOT NULL,
    -- A delivery that comes again between the commit that parked it and its ack must not be parked
    -- twice; foreign messages may have no id, so the content identifies it.
    digest          bytea NOT NULL,
    deliveries      bigint NOT NULL DEFAULT 1,
    message_id      text,
    kind            text,
    scope           text,
    operation       text,
    exchange        text NOT NULL,
    routing_key     text NOT NULL,
    headers         jsonb NOT NULL,
    content_type    text,
    payload         bytea NOT NULL,
    parked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_parked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_parked_once UNIQUE (consumer, digest)
);
CREATE INDEX inbox_parked_reason ON inbox_parked (consumer, reason, id);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261101000002', 'inbox', '20261101000001');
