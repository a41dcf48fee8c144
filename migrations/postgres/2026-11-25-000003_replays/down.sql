DROP TABLE outbox_replays;
DELETE FROM counterfoil_schema WHERE version = '20261125000003';
