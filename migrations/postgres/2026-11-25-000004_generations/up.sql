-- Generations of a consumer: a projection is built anew under the next one, beside the old one, and
-- readers are switched over. A consumer that has never been rebuilt has no row and is at generation 1.

CREATE TABLE inbox_generations (
    consumer     text PRIMARY KEY CONSTRAINT inbox_generations_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    -- The one that readers use.
    active       bigint NOT NULL DEFAULT 1,
    -- The one that is being built; NULL when none is.
    building     bigint,
    -- The highest ever given out. A number is not used again: the keys of an abandoned generation would
    -- pass for duplicates.
    newest       bigint NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    caught_up_at timestamptz,
    switched_at  timestamptz,
    CONSTRAINT inbox_generations_numbers CHECK (active >= 1 AND newest >= active AND newest >= coalesce(building, 1)
                                                AND building IS DISTINCT FROM active),
    CONSTRAINT inbox_generations_caught_up CHECK (caught_up_at IS NULL OR building IS NOT NULL)
);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000004', 'generations', '20261101000001');
