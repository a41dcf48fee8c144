DROP TABLE inbox_transitions;
DROP TABLE inbox_states;
DELETE FROM counterfoil_schema WHERE version = '20261125000002';
