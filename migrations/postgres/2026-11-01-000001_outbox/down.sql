DROP FUNCTION outbox_enqueue(text, text, jsonb, text, text, text, jsonb, timestamptz, boolean, uuid);
DROP VIEW outbox_pending;
DROP TABLE outbox_holds;
DROP TABLE outbox_cursors;
DROP TABLE outbox_messages;
-- Where `relay wakeup on` made it; its trigger went with the table.
DROP FUNCTION IF EXISTS outbox_wake();
DROP TABLE counterfoil_schema;
