-- What the generations have applied stays under their names.
DROP TABLE inbox_generations;
DELETE FROM counterfoil_schema WHERE version = '20261125000004';
