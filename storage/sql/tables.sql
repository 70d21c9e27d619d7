-- Questions to PostgreSQL's catalogue about somebody's tables.  None of them reads a row of those tables.

-- name: relations
-- What the inspector does not tell of each table and view: estimated rows (-1: never counted), row-level security, partitions.
SELECT
    namespace.nspname AS schema,
    relation.relname AS name,
    relation.reltuples::bigint AS n_rows,
    relation.relrowsecurity AS has_row_security,
    relation.relispartition AS is_partition
FROM pg_class AS relation
JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE relation.relkind IN ('r', 'p', 'v', 'm', 'f');

-- name: schemas
-- The schemas that are neither PostgreSQL's nor ours.
SELECT nspname
FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'recommender')
ORDER BY nspname;

-- name: zone
-- Whether the server knows a time zone; an error says that it does not.
SELECT now() AT TIME ZONE %(zone)s;
