-- Effects in the world: what was asked of a provider under which key, and what came of it.
-- Times are microseconds since 1970 in UTC, by SQLite's own clock.

-- One row per effect of an operation, committed before the provider is called. The row is the intent.
CREATE TABLE inbox_effects (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer      TEXT NOT NULL CONSTRAINT inbox_effects_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    scope         TEXT NOT NULL CONSTRAINT inbox_effects_scope_size CHECK (octet_length(scope) BETWEEN 1 AND 255),
    operation     TEXT NOT NULL CONSTRAINT inbox_effects_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    effect        TEXT NOT NULL CONSTRAINT inbox_effects_effect_size CHECK (octet_length(effect) BETWEEN 1 AND 255),
    -- What the provider is given on every attempt; made of the four names above.
    provider_key  TEXT NOT NULL CONSTRAINT inbox_effects_provider_key_size CHECK (octet_length(provider_key) = 36),
    -- Of what is asked for. NULL for one that was called off before anybody asked.
    fingerprint   BLOB CONSTRAINT inbox_effects_fingerprint_size CHECK (octet_length(fingerprint) = 32),
    -- What may be done about an unknown outcome, as declared at the last attempt.
    policy        TEXT NOT NULL CONSTRAINT inbox_effects_policy CHECK (policy IN ('repeat_safe', 'ask', 'review')),
    -- intended: certainly not performed. attempted: a call is under way, or its process died in it.
    state         TEXT NOT NULL
                  CONSTRAINT inbox_effects_state CHECK (state IN ('intended', 'attempted', 'done', 'failed', 'unknown')),
    -- Calls begun, and the fence of the last one. A decision raises the epoch too.
    attempts      INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    -- Who called last, for people; nothing depends on it.
    owner         TEXT NOT NULL DEFAULT '',
    -- Until then nobody else calls: the caller may be alive.
    lease_until   INTEGER,
    -- Questions to the provider since the outcome became unknown, and when the next is due.
    asks          INTEGER NOT NULL DEFAULT 0,
    ask_at        INTEGER,
    -- The provider's answer as JSON text.
    result        TEXT,
    error         TEXT NOT NULL DEFAULT '',
    created_at    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    attempted_at  INTEGER,
    -- Since when an attempt's outcome is not known. A repeated call does not end the doubt, its answer does.
    unknown_since INTEGER,
    -- Since when a person has to decide.
    review_since  INTEGER,
    settled_at    INTEGER,
    -- What an attempt reported after a later one had begun, or after a decision.
    late_result   TEXT,
    late_at       INTEGER,
    decided_by    TEXT,
    decided_why   TEXT,
    decided_at    INTEGER,
    CONSTRAINT inbox_effects_once UNIQUE (consumer, scope, operation, effect),
    CONSTRAINT inbox_effects_lease CHECK ((state = 'attempted') = (lease_until IS NOT NULL)),
    CONSTRAINT inbox_effects_ask CHECK (ask_at IS NULL OR (state = 'unknown' AND review_since IS NULL)),
    CONSTRAINT inbox_effects_doubt CHECK (state <> 'unknown' OR unknown_since IS NOT NULL),
    CONSTRAINT inbox_effects_review CHECK (review_since IS NULL OR state = 'unknown'),
    CONSTRAINT inbox_effects_settled CHECK ((state IN ('done', 'failed')) = (settled_at IS NOT NULL))
) STRICT;
-- The few that are open, for whoever looks after them, among the many that are done.
CREATE INDEX inbox_effects_attempted ON inbox_effects (consumer, lease_until) WHERE state = 'attempted';
CREATE INDEX inbox_effects_unknown ON inbox_effects (consumer, ask_at) WHERE state = 'unknown';
-- Retention looks for the oldest.
CREATE INDEX inbox_effects_age ON inbox_effects (consumer, created_at);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000001', 'effects', '20261101000001');
