DROP TABLE inbox_parked;
DROP TABLE inbox_operations;
DELETE FROM counterfoil_schema WHERE version = '20261101000002';
