-- Nothing to change: SQLite keeps its constraints compiled with the statement, and looks an operation up by the
-- index that is unique.

INSERT INTO counterfoil_schema (version, name, compatible_from)
VALUES ('20261126000000', 'inbox_hot_path', '20261101000001');
