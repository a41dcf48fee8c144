-- Effects in the world: what was asked of a provider under which key, and what came of it.

-- One row per effect of an operation, committed before the provider is called. The row is the intent.
CREATE TABLE inbox_effects (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer      text NOT NULL CONSTRAINT inbox_effects_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope         text NOT NULL CONSTRAINT inbox_effects_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    operation     text NOT NULL CONSTRAINT inbox_effects_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    effect        text NOT NULL CONSTRAINT inbox_effects_effect_size CHECK (octet_length(effect) BETWEEN 1 AND 255),
    -- What the provider is given on every attempt; made of the four names above.
    provider_key  text NOT NULL CONSTRAINT inbox_effects_provider_key_size CHECK (octet_length(provider_key) = 36),
    -- Of what is asked for. NULL for one that was called off before anybody asked.
    fingerprint   bytea CONSTRAINT inbox_effects_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    -- What may be done about an unknown outcome, as declared at the last attempt.
    policy        text NOT NULL CONSTRAINT inbox_effects_policy CHECK (policy IN ('repeat_safe', 'ask', 'review')),
    -- intended: certainly not performed. attempted: a call is under way, or its process died in it.
    state         text NOT NULL
                  CONSTRAINT inbox_effects_state CHECK (state IN ('intended', 'attempted', 'done', 'failed', 'unknown')),
    -- Calls begun, and the fence of the last one. A decision raises the epoch too.
    attempts      integer NOT NULL,
    epoch         bigint NOT NULL,
    -- Who called last, for people; nothing depends on it.
    owner         text NOT NULL DEFAULT '',
    -- Until then nobody else calls: the caller may be alive.
    lease_until   timestamptz,
    -- Questions to the provider since the outcome became unknown, and when the next is due.
    asks          integer NOT NULL DEFAULT 0,
    ask_at        timestamptz,
    -- The provider's answer as JSON text. Text and not jsonb, so that the very same bytes come back.
    result        text,
    error         text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempted_at  timestamptz,
    -- Since when an attempt's outcome is not known. A repeated call does not end the doubt, its answer does.
    unknown_since timestamptz,
    -- Since when a person has to decide.
    review_since  timestamptz,
    settled_at    timestamptz,
    -- What an attempt reported after a later one had begun, or after a decision.
    late_result   text,
    late_at       timestamptz,
    decided_by    text,
    decided_why   text,
    decided_at    timestamptz,
    CONSTRAINT inbox_effects_once UNIQUE (consumer, scope, operation, effect),
    CONSTRAINT inbox_effects_lease CHECK ((state = 'attempted') = (lease_until IS NOT NULL)),
    CONSTRAINT inbox_effects_ask CHECK (ask_at IS NULL OR (state = 'unknown' AND review_since IS NULL)),
    CONSTRAINT inbox_effects_doubt CHECK (state <> 'unknown' OR unknown_since IS NOT NULL),
    CONSTRAINT inbox_effects_review CHECK (review_since IS NULL OR state = 'unknown'),
    CONSTRAINT inbox_effects_settled CHECK ((state IN ('done', 'failed')) = (settled_at IS NOT NULL))
) WITH (fillfactor = 80);
-- The few that are open, for whoever looks after them, among the many that are done.
CREATE INDEX inbox_effects_attempted ON inbox_effects (consumer, lease_until) WHERE state = 'attempted';
CREATE INDEX inbox_effects_unknown ON inbox_effects (consumer, ask_at) WHERE state = 'unknown';
-- Retention looks for the oldest.
CREATE INDEX inbox_effects_age ON inbox_effects (consumer, created_at);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000001', 'effects', '20261101000001');
