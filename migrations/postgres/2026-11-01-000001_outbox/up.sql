-- The outbox: an append-only log, its cursors and the messages held back from them.
-- Needs PostgreSQL 13 (xid8, pg_snapshot).

-- Each migration stamps itself here, whoever runs it (this library, the host's diesel harness, psql),
-- so there is one record of what the schema is.
CREATE TABLE counterfoil_schema (
    version         text PRIMARY KEY,
    name            text NOT NULL,
    -- The oldest schema version whose code still works with this one.
    compatible_from text NOT NULL,
    applied_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Fixed-width columns first: eight bytes of padding saved per row.
CREATE TABLE outbox_messages (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The top-level transaction that wrote the row. Never set it: the reader trusts it.
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    deliver_after timestamptz,
    -- The identity of the event record. A retry of an unknown COMMIT uses the same id again and is
    -- stopped by this constraint.
    id            uuid NOT NULL DEFAULT gen_random_uuid()
                  CONSTRAINT outbox_messages_id_unique UNIQUE,
    kind          text NOT NULL
                  CONSTRAINT outbox_messages_kind_size CHECK (octet_length(kind) BETWEEN 1 AND 255),
    operation     text NOT NULL
                  CONSTRAINT outbox_messages_operation_size CHECK (octet_length(operation) BETWEEN 1 AND 255),
    ordering_key  text
                  CONSTRAINT outbox_messages_ordering_key_size CHECK (octet_length(ordering_key) BETWEEN 1 AND 255),
    -- Not empty: the default exchange reaches any queue by name, past bindings and permissions.
    exchange      text NOT NULL DEFAULT 'events'
                  CONSTRAINT outbox_messages_exchange_size CHECK (octet_length(exchange) BETWEEN 1 AND 255),
    -- NULL stands for the kind.
    routing_key   text
                  CONSTRAINT outbox_messages_routing_key_size CHECK (octet_length(routing_key) <= 255),
    content_type  text NOT NULL DEFAULT 'application/json'
                  CONSTRAINT outbox_messages_content_type_size CHECK (octet_length(content_type) BETWEEN 1 AND 255),
    headers       jsonb NOT NULL DEFAULT '{}'
                  CONSTRAINT outbox_messages_headers_object CHECK (jsonb_typeof(headers) = 'object')
                  CONSTRAINT outbox_messages_headers_size CHECK (octet_length(headers::text) <= 65536),
    payload       bytea NOT NULL
                  CONSTRAINT outbox_messages_payload_size CHECK (octet_length(payload) <= 8388608),
    CONSTRAINT outbox_messages_no_control_characters CHECK (
        (kind || operation || exchange || content_type || coalesce(ordering_key, '') || coalesce(routing_key, ''))
        !~ '[\u0001-\u001f\u007f-\u009f]')
);

-- For rows below a cursor whose transaction was still open when the cursor passed. The second
-- column lets the reader skip rows above the cursor without visiting the table.
CREATE INDEX outbox_messages_xid ON outbox_messages (xid, seq);

-- One row per reader of the log. Every write of a holder names its epoch.
CREATE TABLE outbox_cursors (
    name          text PRIMARY KEY
                  CONSTRAINT outbox_cursors_name_size CHECK (octet_length(name) BETWEEN 1 AND 255),
    -- Invariant: every row with seq <= this seq that is visible in this snapshot has been handed on.
    seq           bigint NOT NULL DEFAULT 0,
    snapshot      pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    -- While a large late transaction is read in pieces: rows up to late_seq that are visible in
    -- late_snapshot have been handed on as well.
    late_seq      bigint,
    late_snapshot pg_snapshot,
    owner         text,
    epoch         bigint NOT NULL DEFAULT 0,
    lease_until   timestamptz,
    advanced_at   timestamptz,
    CONSTRAINT outbox_cursors_late_both CHECK ((late_seq IS NULL) = (late_snapshot IS NULL)),
    CONSTRAINT outbox_cursors_lease_both CHECK ((owner IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 50);

-- Messages the cursor has passed that are not published: delayed, refused, behind a refused one of
-- the same ordering key, or dead until somebody decides.
CREATE TABLE outbox_holds (
    cursor       text NOT NULL REFERENCES outbox_cursors (name) ON DELETE CASCADE,
    -- No foreign key to the log: it would make every purged row look up this table.
    seq          bigint NOT NULL,
    state        text NOT NULL CONSTRAINT outbox_holds_state CHECK (state IN ('waiting', 'dead')),
    reason       text NOT NULL CONSTRAINT outbox_holds_reason CHECK (reason IN
                 ('delayed', 'behind', 'unroutable', 'nacked', 'exchange_missing', 'access_refused', 'refused', 'poison')),
    attempts     integer NOT NULL DEFAULT 0,
    not_before   timestamptz NOT NULL,
    held_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error   text NOT NULL DEFAULT '',
    ordering_key text,
    PRIMARY KEY (cursor, seq)
);
CREATE INDEX outbox_holds_due ON outbox_holds (cursor, not_before, seq) WHERE state = 'waiting';
CREATE INDEX outbox_holds_key ON outbox_holds (cursor, ordering_key, seq) WHERE ordering_key IS NOT NULL;

-- What is committed and not yet handed on, per cursor. For people and tools; the reader has its own
-- statement.
CREATE VIEW outbox_pending AS
SELECT c.name AS cursor, m.seq, m.id, m.kind, m.operation, m.ordering_key, m.exchange,
       coalesce(m.routing_key, m.kind) AS routing_key, m.deliver_after, m.created_at
FROM outbox_cursors c
CROSS JOIN LATERAL (
    SELECT * FROM outbox_messages WHERE seq > c.seq
    UNION ALL
    SELECT * FROM outbox_messages
    WHERE seq <= c.seq AND xid = ANY (ARRAY(SELECT pg_snapshot_xip(c.snapshot)))
    UNION ALL
    SELECT * FROM outbox_messages WHERE seq <= c.seq AND xid >= pg_snapshot_xmax(c.snapshot)
) m
WHERE c.late_snapshot IS NULL
   OR m.seq > c.late_seq
   OR NOT pg_visible_in_snapshot(m.xid, c.late_snapshot);

-- For producers in any language and for triggers. Call it inside the business transaction.
-- `serialized` keeps order per ordering key also where the transactions lock nothing in common.
CREATE FUNCTION outbox_enqueue(
    kind          text,
    operation     text,
    payload       jsonb,
    ordering_key  text DEFAULT NULL,
    exchange      text DEFAULT 'events',
    routing_key   text DEFAULT NULL,
    headers       jsonb DEFAULT '{}',
    deliver_after timestamptz DEFAULT NULL,
    serialized    boolean DEFAULT false,
    id            uuid DEFAULT gen_random_uuid()
) RETURNS uuid
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    IF outbox_enqueue.serialized AND outbox_enqueue.ordering_key IS NULL THEN
        RAISE EXCEPTION 'outbox_enqueue: serialized needs an ordering_key'
            USING HINT = 'Pass ordering_key => ..., or leave serialized out.';
    END IF;
    IF outbox_enqueue.serialized THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(outbox_enqueue.ordering_key, 1131376460));
    END IF;
    INSERT INTO outbox_messages
        (id, kind, operation, ordering_key, exchange, routing_key, headers, payload, deliver_after)
    VALUES
        (outbox_enqueue.id, outbox_enqueue.kind, outbox_enqueue.operation, outbox_enqueue.ordering_key,
         outbox_enqueue.exchange, outbox_enqueue.routing_key, outbox_enqueue.headers,
         convert_to(outbox_enqueue.payload::text, 'UTF8'), outbox_enqueue.deliver_after);
    RETURN outbox_enqueue.id;
END
$$;

-- The tables stand where this migration ran, whatever path the caller has. Not SET … FROM CURRENT: that
-- keeps a "$user" in the path, which means another schema to another role.
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION outbox_enqueue(text, text, jsonb, text, text, text, jsonb, timestamptz, boolean, uuid)
         SET search_path = %I, pg_temp', current_schema());
END
$$;

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261101000001', 'outbox', '20261101000001');
