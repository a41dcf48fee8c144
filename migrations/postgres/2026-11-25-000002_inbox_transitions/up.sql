-- State machines of business entities: where each stands, and how it came there.

CREATE TABLE inbox_states (
    machine    text NOT NULL CONSTRAINT inbox_states_machine_size CHECK (octet_length(machine) BETWEEN 1 AND 255),
    entity     text NOT NULL CONSTRAINT inbox_states_entity_size CHECK (octet_length(entity) BETWEEN 1 AND 255),
    state      text NOT NULL CONSTRAINT inbox_states_state_size CHECK (octet_length(state) BETWEEN 1 AND 255),
    -- Moves so far. An entity that has never moved has no row.
    version    bigint NOT NULL CONSTRAINT inbox_states_version CHECK (version > 0),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (machine, entity)
);

-- Every decision that was committed. Nobody changes a line.
CREATE TABLE inbox_transitions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine    text NOT NULL CONSTRAINT inbox_transitions_machine_size CHECK (octet_length(machine) BETWEEN 1 AND 255),
    entity     text NOT NULL CONSTRAINT inbox_transitions_entity_size CHECK (octet_length(entity) BETWEEN 1 AND 255),
    -- Moves of the entity, this one included. NULL: its state is kept in a table of the host's.
    version    bigint,
    event      text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    -- What came early or goes to review is rolled back: those are found in inbox_parked.
    verdict    text NOT NULL CONSTRAINT inbox_transitions_verdict CHECK (verdict IN ('to', 'duplicate', 'stale')),
    consumer   text,
    scope      text,
    operation  text,
    message_id text,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_transitions_stays CHECK (verdict = 'to' OR from_state = to_state)
);
CREATE INDEX inbox_transitions_entity ON inbox_transitions (machine, entity, id);

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261125000002', 'inbox_transitions', '20261101000001');
