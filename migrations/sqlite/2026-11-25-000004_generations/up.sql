-- Generations of a consumer: a projection is built anew under the next one, beside the old one, and
-- readers are switched over. A consumer that has never been rebuilt has no row and is at generation 1.

CREATE TABLE inbox_generations (
    consumer     TEXT PRIMARY KEY CONSTRAINT inbox_generations_consumer_size CHECK (octet_length(consumer) BETWEEN 1 AND 255),
    -- The one that readers use.
    active       INTEGER NOT NULL DEFAULT 1,
    -- The one that is being built; NULL when none is.
    building     INTEGER,
    -- The highest ever given out. A number is not used again: the keys of an abandoned generation would
    -- pass for duplicates.
    newest       INTEGER NOT NULL,
    started_at   INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    caught_up_at INTEGER,
    switched_at  INTEGER,
    CONSTRAINT inbox_generations_numbers CHECK (active >= 1 AND newest >= active AND newest >= coalesce(building, 1)
                                                AND building IS NOT active),
    CONSTRAINT inbox_generations_caught_up CHECK (caught_up_at IS NULL OR building IS NOT NULL)
) STRICT;

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000004', 'generations', '20261101000001');
