DROP VIEW outbox_pending;
DROP TABLE outbox_holds;
DROP TABLE outbox_cursors;
DROP TABLE outbox_messages;
DROP TABLE counterfoil_schema;
