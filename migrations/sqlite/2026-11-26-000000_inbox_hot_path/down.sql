DELETE FROM counterfoil_schema WHERE version = '20261126000000';
