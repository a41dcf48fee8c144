-- State machines of business entities: where each stands, and how it came there.

CREATE TABLE inbox_states (
    machine    TEXT NOT NULL CONSTRAINT inbox_states_machine_size CHECK (octet_length(machine) BETWEEN 1 AND 255),
    entity     TEXT NOT NULL CONSTRAINT inbox_states_entity_size CHECK (octet_length(entity) BETWEEN 1 AND 255),
    state      TEXT NOT NULL CONSTRAINT inbox_states_state_size CHECK (octet_length(state) BETWEEN 1 AND 255),
    -- Moves so far. An entity that has never moved has no row.
    version    INTEGER NOT NULL CONSTRAINT inbox_states_version CHECK (version > 0),
    changed_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (machine, entity)
) STRICT, WITHOUT ROWID;

-- Every decision that was committed.
CREATE TABLE inbox_transitions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    machine    TEXT NOT NULL CONSTRAINT inbox_transitions_machine_size CHECK (octet_length(machine) BETWEEN 1 AND 255),
    entity     TEXT NOT NULL CONSTRAINT inbox_transitions_entity_size CHECK (octet_length(entity) BETWEEN 1 AND 255),
    -- Moves of the entity, this one included. NULL: its state is kept in a table of the host's.
    version    INTEGER,
    event      TEXT NOT NULL,
    from_state TEXT NOT NULL,
    to_state   TEXT NOT NULL,
    -- What came early or goes to review is rolled back: those are found in inbox_parked.
    verdict    TEXT NOT NULL CONSTRAINT inbox_transitions_verdict CHECK (verdict IN ('to', 'duplicate', 'stale')),
    consumer   TEXT,
    scope      TEXT,
    operation  TEXT,
    message_id TEXT,
    at         INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    CONSTRAINT inbox_transitions_stays CHECK (verdict = 'to' OR from_state = to_state)
) STRICT;
CREATE INDEX inbox_transitions_entity ON inbox_transitions (machine, entity, id);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000002', 'inbox_transitions', '20261101000001');
