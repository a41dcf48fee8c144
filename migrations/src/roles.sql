-- Four group roles with what each party needs and nothing else. Grant them to the roles that log in:
--   GRANT {producer} TO shop;
-- Safe to run again, also after an update of the tables: rights are taken back and given anew in one
-- transaction. Run it as the owner of the tables; it needs CREATEROLE unless the four roles exist.

DO $roles$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['{producer_name}', '{relay_name}', '{consumer_name}', '{admin_name}'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION
                -- Roles belong to the whole cluster, and somebody made it at this moment.
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$roles$;

REVOKE ALL ON {schema}.counterfoil_schema, {schema}.outbox_messages, {schema}.outbox_cursors,
              {schema}.outbox_holds, {schema}.outbox_audit, {schema}.outbox_replays, {schema}.outbox_pending,
              {schema}.inbox_operations, {schema}.inbox_parked, {schema}.inbox_starts, {schema}.inbox_audit,
              {schema}.inbox_generations, {schema}.inbox_states, {schema}.inbox_transitions, {schema}.inbox_effects, {schema}.inbox_requests
    FROM PUBLIC, {producer}, {relay}, {consumer}, {admin};
REVOKE ALL ON SEQUENCE {schema}.outbox_messages_seq_seq, {schema}.outbox_audit_id_seq, {schema}.inbox_parked_id_seq,
                       {schema}.inbox_audit_id_seq, {schema}.outbox_replays_id_seq,
                       {schema}.inbox_transitions_id_seq, {schema}.inbox_effects_id_seq
    FROM PUBLIC, {producer}, {relay}, {consumer}, {admin};
-- Everybody may call a function, unless that is taken back.
REVOKE ALL ON FUNCTION
    {schema}.outbox_enqueue(text, text, jsonb, text, text, text, jsonb, timestamptz, boolean, uuid),
    {schema}.outbox_release_first()
    FROM PUBLIC, {producer}, {relay}, {consumer}, {admin};

GRANT USAGE ON SCHEMA {schema} TO {producer}, {relay}, {consumer}, {admin};

-- The producer writes messages and reads none. It sets neither seq nor xid, which the reader trusts, nor
-- created_at.
GRANT INSERT (id, kind, operation, ordering_key, exchange, routing_key, content_type, headers, payload, deliver_after)
    ON {schema}.outbox_messages TO {producer};
GRANT EXECUTE ON FUNCTION
    {schema}.outbox_enqueue(text, text, jsonb, text, text, text, jsonb, timestamptz, boolean, uuid) TO {producer};

-- The relay moves cursors and neither makes, filters, pauses nor retires one.
GRANT SELECT ON {schema}.counterfoil_schema, {schema}.outbox_messages, {schema}.outbox_cursors, {schema}.outbox_pending
    TO {relay};
GRANT SELECT ON SEQUENCE {schema}.outbox_messages_seq_seq TO {relay};
GRANT UPDATE (seq, snapshot, late_seq, late_snapshot, owner, epoch, lease_until, advanced_at, system_id, timeline)
    ON {schema}.outbox_cursors TO {relay};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.outbox_holds TO {relay};
{purge}
-- The consumer has the inbox. A handler that enqueues needs the producer's rights as well.
GRANT SELECT ON {schema}.counterfoil_schema, {schema}.inbox_operations, {schema}.inbox_parked, {schema}.inbox_starts,
                {schema}.inbox_generations
    TO {consumer};
GRANT INSERT (consumer, scope, operation, fingerprint, message_id, result),
      UPDATE (result, finished_at, verdict, result_dropped_at, duplicates, last_duplicate_at, conflicts, last_conflict_at,
              redelivered, same_message, other_message, concurrent, replayed),
      DELETE
    ON {schema}.inbox_operations TO {consumer};
GRANT INSERT (consumer, reason, detail, attempts, digest, message_id, kind, scope, operation, exchange, routing_key,
              headers, content_type, payload, state, not_before, ordering_key, early_since, made_at),
      UPDATE (reason, detail, attempts, deliveries, scope, operation, last_parked_at, state, not_before, starts, epoch,
              early_since),
      DELETE
    ON {schema}.inbox_parked TO {consumer};
GRANT INSERT, UPDATE (starts, started_at), DELETE ON {schema}.inbox_starts TO {consumer};
-- What a request was is not changed by its end; the next run of a key begins anew.
GRANT SELECT, DELETE,
      INSERT (consumer, scope, operation, fingerprint, owner, lease_until),
      UPDATE (fingerprint, state, owner, epoch, lease_until, reply, begun_at, completed_at)
    ON {schema}.inbox_requests TO {consumer};
-- Its state machines move forward: no entity is forgotten, and no line of the history changes.
GRANT SELECT ON {schema}.inbox_states, {schema}.inbox_transitions TO {consumer};
GRANT INSERT (machine, entity, state, version), UPDATE (state, version, changed_at)
    ON {schema}.inbox_states TO {consumer};
GRANT INSERT (machine, entity, version, event, from_state, to_state, verdict, consumer, scope, operation, message_id)
    ON {schema}.inbox_transitions TO {consumer};

-- Its effects: whose they are stays as it was, and a decision is the operator's.
GRANT SELECT ON {schema}.inbox_effects TO {consumer};
GRANT INSERT (consumer, scope, operation, effect, provider_key, fingerprint, policy, state, attempts, epoch, owner,
              lease_until, error, attempted_at, settled_at),
      UPDATE (policy, fingerprint, state, attempts, epoch, owner, lease_until, asks, ask_at, result, error, attempted_at,
              unknown_since, review_since, settled_at, late_result, late_at),
      DELETE
    ON {schema}.inbox_effects TO {consumer};

-- The operator sees everything, makes and retires cursors, decides about what is held and parked, and can
-- give rows numbers of this cluster after a restore. Every change leaves a line that cannot be changed.
GRANT SELECT ON {schema}.counterfoil_schema, {schema}.outbox_messages, {schema}.outbox_cursors, {schema}.outbox_holds,
                {schema}.outbox_audit, {schema}.outbox_replays, {schema}.outbox_pending, {schema}.inbox_operations, {schema}.inbox_parked,
                {schema}.inbox_starts, {schema}.inbox_audit, {schema}.inbox_generations, {schema}.inbox_states,
                {schema}.inbox_transitions, {schema}.inbox_effects, {schema}.inbox_requests
    TO {admin};
GRANT SELECT, UPDATE ON SEQUENCE {schema}.outbox_messages_seq_seq TO {admin};
GRANT INSERT, UPDATE, DELETE ON {schema}.outbox_cursors, {schema}.outbox_holds TO {admin};
GRANT UPDATE (xid), DELETE ON {schema}.outbox_messages TO {admin};
-- The rebase remembers late rows in a temporary table. Everybody may make one, unless that was taken back; then it is
-- the database's owner who can give it.
DO $temporary$
BEGIN
    EXECUTE pg_catalog.format('GRANT TEMPORARY ON DATABASE %I TO {admin}', pg_catalog.current_database());
EXCEPTION
    WHEN insufficient_privilege THEN NULL;
END
$temporary$;
GRANT INSERT (actor, action, cursor, reason, detail) ON {schema}.outbox_audit TO {admin};
GRANT INSERT (consumer, queue, forced, selection, rate, first_kept, total, position, last_seq, owner, lease_until, actor, reason),
      UPDATE (sent, unsendable, position, state, last_error, owner, epoch, lease_until, updated_at, finished_at)
    ON {schema}.outbox_replays TO {admin};
GRANT UPDATE (result, result_dropped_at), DELETE ON {schema}.inbox_operations TO {admin};
-- What a message is stays as it was delivered.
GRANT UPDATE (state, not_before, starts, epoch, early_since, forced), DELETE ON {schema}.inbox_parked TO {admin};
GRANT DELETE ON {schema}.inbox_starts, {schema}.inbox_requests TO {admin};
GRANT INSERT (consumer, building, newest), UPDATE (active, building, newest, started_at, caught_up_at, switched_at)
    ON {schema}.inbox_generations TO {admin};
GRANT INSERT (actor, action, consumer, reason, detail) ON {schema}.inbox_audit TO {admin};
-- It decides about effects, and its program looks after them as a consumer does.
GRANT UPDATE (policy, fingerprint, state, attempts, epoch, owner, lease_until, asks, ask_at, result, error, attempted_at,
              unknown_since, review_since, settled_at, late_result, late_at, decided_by, decided_why, decided_at),
      DELETE
    ON {schema}.inbox_effects TO {admin};
