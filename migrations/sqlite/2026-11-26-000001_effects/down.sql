-- Which effects were performed is forgotten.
DROP TABLE inbox_effects;
DELETE FROM counterfoil_schema WHERE version = '20261126000001';
