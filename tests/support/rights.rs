//! What each of the roles that `relay roles` makes may do, statement by statement.

/// What a role may do, and what it may not, one statement each.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Succeeds.
    pub may: &'static [&'static str],
    /// Is refused.
    pub may_not: &'static [&'static str],
}

/// The producer writes messages and reads none.
pub const PRODUCER: Rights = Rights {
    may: &[
        "INSERT INTO outbox_messages (id, kind, operation, ordering_key, exchange, routing_key, content_type, headers, payload, deliver_after)
         VALUES (gen_random_uuid(), 'k', 'o', 'key', 'e', 'r', 'application/json', '{}', 'p', now())",
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', 'o', 'p')",
        "SELECT outbox_enqueue('k', 'o', '{}')",
        "SELECT outbox_enqueue('k', 'o', '{}', ordering_key => 'key', serialized => true)",
    ],
    may_not: &[
        "SELECT payload FROM outbox_messages",
        "SELECT seq FROM outbox_messages",
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', 'o', 'p') RETURNING seq",
        "INSERT INTO outbox_messages (seq, kind, operation, payload) OVERRIDING SYSTEM VALUE VALUES (1, 'k', 'o', 'p')",
        "INSERT INTO outbox_messages (xid, kind, operation, payload) VALUES ('1', 'k', 'o', 'p')",
        "INSERT INTO outbox_messages (created_at, kind, operation, payload) VALUES (now(), 'k', 'o', 'p')",
        "UPDATE outbox_messages SET payload = 'x'",
        "DELETE FROM outbox_messages",
        "TRUNCATE outbox_messages",
        "SELECT nextval('outbox_messages_seq_seq')",
        "SELECT setval('outbox_messages_seq_seq', 1)",
        "SELECT * FROM outbox_cursors",
        "SELECT * FROM outbox_holds",
        "SELECT * FROM outbox_audit",
        "SELECT * FROM outbox_pending",
        "SELECT * FROM inbox_operations",
        "SELECT * FROM inbox_parked",
        "SELECT * FROM inbox_states",
        "SELECT * FROM inbox_transitions",
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint) VALUES ('c', 's', 'o', sha256(''))",
        "INSERT INTO counterfoil_schema (version, name, compatible_from) VALUES ('9', '9', '9')",
    ],
};

/// The relay moves cursors.
pub const RELAY: Rights = Rights {
    may: &[
        "SELECT * FROM counterfoil_schema",
        "SELECT * FROM outbox_messages",
        "SELECT last_value FROM outbox_messages_seq_seq",
        "SELECT * FROM outbox_cursors FOR UPDATE",
        "SELECT * FROM outbox_pending",
        "UPDATE outbox_cursors SET seq = seq, snapshot = snapshot, late_seq = NULL, late_snapshot = NULL, owner = 'o',
             epoch = epoch + 1, lease_until = now(), advanced_at = now(), system_id = '1', timeline = 1 WHERE name = 'relay'",
        "INSERT INTO outbox_holds (cursor, seq, state, reason, not_before) VALUES ('relay', 1, 'waiting', 'nacked', now())
             ON CONFLICT DO NOTHING",
        "UPDATE outbox_holds SET attempts = attempts + 1 WHERE cursor = 'relay'",
        "DELETE FROM outbox_holds WHERE cursor = 'relay'",
        "DELETE FROM outbox_messages WHERE seq < 0",
        "SELECT system_identifier FROM pg_control_system()",
        "SELECT timeline_id FROM pg_control_checkpoint()",
        "SELECT pg_walfile_name(pg_current_wal_lsn())",
    ],
    may_not: &[
        "INSERT INTO outbox_cursors (name) VALUES ('another')",
        "DELETE FROM outbox_cursors",
        "UPDATE outbox_cursors SET name = 'x'",
        "UPDATE outbox_cursors SET kinds = NULL",
        "UPDATE outbox_cursors SET exchanges = NULL",
        "UPDATE outbox_cursors SET paused_at = NULL, pause_reason = NULL",
        "UPDATE outbox_cursors SET created_at = now()",
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', 'o', 'p')",
        "SELECT outbox_enqueue('k', 'o', '{}')",
        "UPDATE outbox_messages SET payload = 'x'",
        "UPDATE outbox_messages SET xid = DEFAULT",
        "TRUNCATE outbox_messages",
        "SELECT setval('outbox_messages_seq_seq', 1)",
        "INSERT INTO outbox_audit (actor, action) VALUES ('a', 'b')",
        "SELECT * FROM outbox_audit",
        "SELECT * FROM outbox_replays",
        "SELECT * FROM inbox_operations",
        "SELECT * FROM inbox_parked",
        "SELECT * FROM inbox_states",
        "SELECT * FROM inbox_transitions",
        "DELETE FROM counterfoil_schema",
    ],
};

/// The consumer has the inbox.
pub const CONSUMER: Rights = Rights {
    may: &[
        "SELECT * FROM counterfoil_schema",
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id) VALUES ('c', 's', 'o', sha256(''), 'm')
             ON CONFLICT DO NOTHING",
        "UPDATE inbox_operations SET result = 'r', duplicates = duplicates + 1, last_duplicate_at = now(), conflicts = 0,
             last_conflict_at = NULL WHERE consumer = 'c' RETURNING fingerprint, message_id, result, applied_at",
        "UPDATE inbox_operations SET result = 'r', verdict = 'stale', finished_at = clock_timestamp(), result_dropped_at = NULL",
        "UPDATE inbox_operations SET redelivered = 1, same_message = 1, other_message = 1, concurrent = 1, replayed = 1",
        "SELECT ctid FROM inbox_operations ORDER BY applied_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        "DELETE FROM inbox_operations WHERE consumer = 'c'",
        "DELETE FROM inbox_starts WHERE (consumer, digest) IN (SELECT consumer, digest FROM inbox_starts)",
        "DELETE FROM inbox_parked WHERE state = 'review'",
        "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, message_id, kind, scope, operation, exchange,
                                   routing_key, headers, content_type, payload)
             VALUES ('c', 'rejected', 'd', 1, 'd', 'm', 'k', 's', 'o', 'e', 'r', '{}', 't', 'p')
             ON CONFLICT (consumer, digest) DO UPDATE SET deliveries = inbox_parked.deliveries + 1,
                 last_parked_at = clock_timestamp(), reason = excluded.reason, detail = excluded.detail,
                 attempts = excluded.attempts, scope = excluded.scope, operation = excluded.operation
             RETURNING id",
        "SELECT * FROM inbox_parked",
        "SELECT * FROM inbox_generations",
        "INSERT INTO inbox_states (machine, entity, state, version) VALUES ('m', 'e', 's', 1) ON CONFLICT DO NOTHING",
        "UPDATE inbox_states SET state = 't', version = version + 1, changed_at = now() WHERE machine = 'm' AND version = 1",
        "SELECT state, version, changed_at FROM inbox_states",
        "INSERT INTO inbox_transitions (machine, entity, version, event, from_state, to_state, verdict,
                                        consumer, scope, operation, message_id)
             VALUES ('m', 'e', 1, 'ev', 's', 't', 'to', 'c', 's', 'o', 'mid')",
        "SELECT * FROM inbox_transitions",
    ],
    may_not: &[
        "INSERT INTO inbox_generations (consumer, building, newest) VALUES ('c', 2, 2)",
        "UPDATE inbox_generations SET active = 1",
        "UPDATE inbox_operations SET fingerprint = sha256('x')",
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, applied_at) VALUES ('c', 's', 'o', sha256(''), now())",
        "TRUNCATE inbox_operations",
        "UPDATE inbox_parked SET payload = 'x'",
        "UPDATE inbox_states SET entity = 'x'",
        "DELETE FROM inbox_states",
        "TRUNCATE inbox_states",
        "UPDATE inbox_transitions SET verdict = 'stale'",
        "DELETE FROM inbox_transitions",
        "INSERT INTO inbox_transitions (machine, entity, event, from_state, to_state, verdict, at)
             VALUES ('m', 'e', 'ev', 's', 't', 'to', now())",
        "SELECT * FROM outbox_messages",
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', 'o', 'p')",
        "SELECT outbox_enqueue('k', 'o', '{}')",
        "SELECT * FROM outbox_cursors",
        "UPDATE outbox_cursors SET epoch = 0",
        "SELECT * FROM outbox_holds",
        "SELECT * FROM outbox_audit",
        "SELECT * FROM outbox_replays",
        "UPDATE counterfoil_schema SET name = 'x'",
    ],
};

/// The operator sees everything and decides.
pub const ADMIN: Rights = Rights {
    may: &[
        "SELECT * FROM counterfoil_schema",
        "SELECT * FROM outbox_messages",
        "SELECT * FROM outbox_pending",
        "SELECT * FROM inbox_operations",
        "INSERT INTO outbox_cursors (name, kinds) VALUES ('another', '{k}')",
        "UPDATE outbox_cursors SET paused_at = now(), pause_reason = 'r', kinds = NULL, epoch = epoch + 1",
        "DELETE FROM outbox_cursors WHERE name = 'relay'",
        "INSERT INTO outbox_holds (cursor, seq, state, reason, not_before) VALUES ('relay', 1, 'waiting', 'released', now())",
        "UPDATE outbox_holds SET state = 'waiting', attempts = 0, not_before = now()",
        "DELETE FROM outbox_holds",
        "INSERT INTO outbox_audit (actor, action, cursor, reason, detail) VALUES ('a', 'b', 'c', 'd', '{}') RETURNING id",
        "SELECT * FROM outbox_audit",
        "INSERT INTO outbox_replays (consumer, queue, forced, selection, rate, first_kept, total, position, last_seq, owner,
                                     lease_until, actor, reason)
             VALUES ('c', 'q', false, '{}', 100, 1, 9, 0, 9, 'o', now(), 'a', 'r') RETURNING *",
        "UPDATE outbox_replays SET sent = 1, unsendable = 0, position = 1, state = 'failed', last_error = 'e', owner = NULL,
             epoch = epoch + 1, lease_until = NULL, updated_at = now(), finished_at = now()",
        "SELECT * FROM outbox_replays FOR UPDATE",
        "UPDATE outbox_messages SET xid = DEFAULT WHERE seq > 0",
        "DELETE FROM outbox_messages WHERE seq < 0",
        "SELECT setval('outbox_messages_seq_seq', 100)",
        "UPDATE inbox_operations SET result = NULL, result_dropped_at = clock_timestamp()",
        "SELECT ctid FROM inbox_operations ORDER BY applied_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        "DELETE FROM inbox_operations",
        "DELETE FROM inbox_starts WHERE (consumer, digest) IN (SELECT consumer, digest FROM inbox_starts)",
        "DELETE FROM inbox_parked",
        "INSERT INTO inbox_generations AS g (consumer, building, newest) VALUES ('c', 2, 2)
             ON CONFLICT (consumer) DO UPDATE SET building = g.newest + 1, newest = g.newest + 1,
                 started_at = clock_timestamp(), caught_up_at = NULL RETURNING building",
        "UPDATE inbox_generations SET active = building, building = NULL, caught_up_at = NULL, switched_at = now()",
        "INSERT INTO inbox_audit (actor, action, consumer, reason, detail) VALUES ('a', 'b', 'c', 'd', '{}')",
        "SELECT * FROM inbox_states",
        "SELECT * FROM inbox_transitions",
    ],
    may_not: &[
        "UPDATE outbox_messages SET payload = 'x'",
        "UPDATE outbox_messages SET kind = 'x'",
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', 'o', 'p')",
        "SELECT outbox_enqueue('k', 'o', '{}')",
        "TRUNCATE outbox_messages",
        "UPDATE outbox_audit SET actor = 'x'",
        "DELETE FROM outbox_audit",
        "UPDATE outbox_replays SET actor = 'x'",
        "UPDATE outbox_replays SET selection = '{}'",
        "DELETE FROM outbox_replays",
        "INSERT INTO outbox_audit (at, actor, action) VALUES (now(), 'a', 'b')",
        "INSERT INTO outbox_audit (role, actor, action) VALUES ('r', 'a', 'b')",
        "UPDATE inbox_operations SET fingerprint = sha256('x')",
        "UPDATE inbox_operations SET message_id = 'x'",
        "UPDATE inbox_states SET state = 'x'",
        "DELETE FROM inbox_transitions",
        "UPDATE counterfoil_schema SET name = 'x'",
        "DELETE FROM inbox_generations",
        "DROP TABLE outbox_holds",
        "ALTER TABLE outbox_messages DISABLE TRIGGER ALL",
    ],
};
