-- Keys of requests that ran outside a transaction are forgotten: a repeat runs its handler again.
DROP TABLE inbox_requests;
DELETE FROM counterfoil_schema WHERE version = '20261126000002';
