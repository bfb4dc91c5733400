CREATE TABLE readings (id INTEGER, at TEXT, temp REAL, note TEXT, raw BLOB);
INSERT INTO readings VALUES (2, '2026-05-04 08:00:01', NULL, 'ü', x'00');
INSERT INTO readings VALUES (1, '2026-05-04T00:00:00Z', 1.5, '', NULL);
INSERT INTO readings VALUES (3, NULL, 2.5, NULL, NULL);
INSERT INTO readings VALUES (4, 'yesterday', 3.5, 'x', NULL);
INSERT INTO readings VALUES (NULL, NULL, 9.9, 'never read', NULL);
