-- What migrations are remembered by.

-- name: lock
-- Keeps a second migrator waiting until this transaction ends; the number is ours and means nothing.
SELECT pg_advisory_xact_lock(4517000001);

-- name: record_exists
-- Whether the database was ever migrated; asks the catalogue, so a role without rights gets an answer as well.
SELECT to_regclass('recommender.schema_migration') IS NOT NULL;

-- name: create_record
-- The table that remembers, with the schema around it, before the first migration.
CREATE SCHEMA IF NOT EXISTS recommender;
CREATE TABLE IF NOT EXISTS recommender.schema_migration (
    version integer PRIMARY KEY, -- prevents that a migration is recorded, and so applied, twice
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied
-- Number and checksum of each migration that was applied.
SELECT version, checksum FROM recommender.schema_migration ORDER BY version;

-- name: record
-- Remembers one migration, in the transaction that applies it.
INSERT INTO recommender.schema_migration (version, name, checksum) VALUES (%(version)s, %(name)s, %(checksum)s);
