-- What `cli.py doctor` and the overview of the service ask; {names} are filled in as SQL, the user's own queries among them.

-- name: limit_statements
-- Bounds every later statement of this transaction.
SELECT set_config('statement_timeout', %(milliseconds)s::text, true);

-- name: server
-- The server, and what this role may do that a service should not.
SELECT
    current_setting('server_version') AS version,
    current_user::text AS role,
    role.rolsuper AS is_superuser,
    has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
    ARRAY(
        SELECT nspname::text FROM pg_namespace
        WHERE nspname !~ '^pg_' AND has_schema_privilege(oid, 'CREATE')
        ORDER BY nspname
    ) AS may_create_in
FROM pg_roles AS role
WHERE role.rolname = current_user;

-- name: relations
-- Tables and views: estimated rows, what this role may and may not see of them, times without a zone.
SELECT
    namespace.nspname::text AS schema,
    relation.relname::text AS name,
    NULLIF(relation.reltuples, -1)::bigint AS n_rows,
    row_security_active(relation.oid) AS is_filtered,
    has_schema_privilege(namespace.oid, 'USAGE') AND has_any_column_privilege(relation.oid, 'SELECT') AS may_read,
    ARRAY(
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped AND atttypid = 'timestamp'::regtype
        ORDER BY attnum
    ) AS naive_times
FROM pg_class AS relation
JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE relation.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND namespace.nspname !~ '^pg_' AND namespace.nspname NOT IN ('information_schema', 'recommender')
ORDER BY namespace.nspname, relation.relname;

-- name: visible_rows
-- How many rows of a table this role sees.
SELECT count(*) FROM {table};

-- name: songs
-- Rows and ids of the songs query, and how many rows have each feature.
SELECT count(*) AS n_rows, count(DISTINCT song_id) AS n_songs, {known}::bigint[] AS n_known
FROM ({songs}
) AS song;

-- name: sequences
-- Sizes of the sequences, and how many cannot be ordered: all of their songs at one time, or without any.
SELECT
    count(*) AS n_sequences,
    COALESCE(sum(n_songs), 0)::bigint AS n_rows,
    count(*) FILTER (WHERE n_songs < {least}) AS n_short,
    COALESCE(percentile_disc(0.5) WITHIN GROUP (ORDER BY n_songs), 0) AS median,
    COALESCE(max(n_songs), 0) AS longest,
    count(*) FILTER (WHERE n_songs > 1 AND n_times <= 1) AS n_at_one_time,
    count(*) FILTER (WHERE n_positions < n_songs) AS n_shared_positions,
    count(*) FILTER (WHERE n_timed < n_songs) AS n_untimed
FROM (
    SELECT
        sequence_id,
        count(*) AS n_songs,
        count(DISTINCT {listened_at}) AS n_times,
        count({listened_at}) AS n_timed,
        count(DISTINCT {position}) AS n_positions
    FROM ({sequences}
    ) AS row_of_sequence
    WHERE sequence_id IS NOT NULL AND song_id IS NOT NULL
    GROUP BY sequence_id
) AS sequence;

-- name: meeting
-- How sequences and songs meet: songs that the songs query lacks, and rows whose song occurs in several sequences.
WITH heard AS (
    SELECT song_id, count(*) AS n_rows, count(DISTINCT sequence_id) AS n_sequences
    FROM ({sequences}
    ) AS row_of_sequence
    WHERE sequence_id IS NOT NULL AND song_id IS NOT NULL
    GROUP BY song_id
), known AS (
    SELECT DISTINCT song_id
    FROM ({songs}
    ) AS song
)
SELECT
    count(*) AS n_heard,
    COALESCE(sum(heard.n_rows) FILTER (WHERE heard.n_sequences > 1), 0)::bigint AS n_rows_shared,
    count(*) FILTER (WHERE known.song_id IS NULL) AS n_orphans,
    COALESCE(sum(heard.n_rows) FILTER (WHERE known.song_id IS NULL), 0)::bigint AS n_orphan_rows
FROM heard
LEFT JOIN known ON known.song_id = heard.song_id;

-- name: duplicates
-- Songs that seem to be another song's recording: the same ISRC, or the same title and artist within three seconds.
WITH song AS (
    SELECT
        {isrc}::text AS isrc,
        regexp_replace(lower({title}), '[^[:alnum:]]+', '', 'g') AS title,
        regexp_replace(lower({artist_name}), '[^[:alnum:]]+', '', 'g') AS artist,
        {duration_ms}::double precision AS duration_ms
    FROM ({songs}
    ) AS row_of_song
), beside AS (
    SELECT
        title <> '' AND duration_ms - lag(duration_ms) OVER alike <= 3000 AS is_again,
        isrc <> '' AND row_number() OVER (PARTITION BY isrc) > 1 AS has_isrc_again
    FROM song
    WINDOW alike AS (PARTITION BY title, artist ORDER BY duration_ms)
)
SELECT
    count(*) FILTER (WHERE has_isrc_again) AS n_by_isrc,
    count(*) FILTER (WHERE is_again) AS n_by_title,
    count(*) FILTER (WHERE has_isrc_again OR is_again) AS n_duplicates
FROM beside;

-- name: generic_plan
-- Plans a statement with a parameter as if its value were not known.
SET LOCAL plan_cache_mode = force_generic_plan;

-- name: queue
-- Whether our schema is there, and this role may use it.
SELECT
    count(*) > 0 AS is_there,
    COALESCE(bool_and(has_schema_privilege(namespace.oid, 'USAGE') AND has_table_privilege(request.oid, 'SELECT')), false) AS is_usable
FROM pg_class AS request
JOIN pg_namespace AS namespace ON namespace.oid = request.relnamespace
WHERE namespace.nspname = 'recommender' AND request.relname = 'request';
