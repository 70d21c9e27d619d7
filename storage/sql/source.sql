-- Questions about the user's tables that stand around the user's own queries; {names} are filled in as SQL.

-- name: columns
-- The columns of a query, without reading a row.
SELECT described.* FROM ({query}
) AS described LIMIT 0;

-- name: type_name
-- The name of a type, by its number.
SELECT format_type(%(type_number)s::oid, -1);

-- name: sequences_by_ids
-- The songs of several sequences in their order: the user's query for one of them, once per id, so that each is read through the
-- same index as alone.  row_number() keeps the query's own order.
SELECT wanted.place, song.song_id
FROM unnest(%(sequence_ids)s::text[]) WITH ORDINALITY AS wanted (sequence_id, place)
CROSS JOIN LATERAL (
    SELECT one_sequence.song_id, row_number() OVER () AS place_in_sequence
    FROM ({query}
    ) AS one_sequence
) AS song
ORDER BY wanted.place, song.place_in_sequence;

-- name: keep_moment
-- The transaction that holds a moment of the database waits while others read in it, however long that takes.
SET LOCAL idle_in_transaction_session_timeout = 0;

-- name: export_moment
-- The name by which other connections see what this transaction sees.
SELECT pg_export_snapshot();

-- name: join_moment
-- See what the transaction sees that exported the moment; the statement before it makes that possible.
SET TRANSACTION SNAPSHOT {moment};

-- name: fix_moment
-- All statements of this transaction see the same moment, and change nothing.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: stream_columns
-- Some columns of a query, in its order: a query that sorts is no part of what the planner may turn about.
SELECT {columns} FROM ({query}
) AS row_of_sequence;

-- name: stream_some_sequences
-- The same of some sequences alone; the ids stand in the statement, so that the condition moves into the query, to its index.
SELECT {columns} FROM ({query}
) AS row_of_sequence WHERE sequence_id = ANY({sequence_ids});

-- name: high_water_mark
-- Counts, the latest time and row, and a checksum that does not depend on the order of rows: the place is part of what is summed, and
-- so are time and group, which decide the split, the history, and the mark of what we proposed, which may be left out.  A record is
-- hashed as it is: faster than its text, and free of the session's zone.
WITH song AS (
    SELECT count(*) AS songs, sum(hashtextextended(row_of_song::text, 0)) AS content
    FROM ({songs}
    ) AS row_of_song
), sequence AS (
    SELECT
        count(*) AS rows,
        count(*) FILTER (WHERE sequence_id IS NULL) AS rows_without_sequence,
        count(*) FILTER (WHERE song_id IS NULL AND sequence_id IS NOT NULL) AS rows_without_song,
        count(*) FILTER (WHERE {is_recommended} AND sequence_id IS NOT NULL AND song_id IS NOT NULL) AS rows_recommended,
        max({listened_at}) AS latest,
        max({row_id}) AS last_row,
        sum({content}) AS content
    FROM ({sequences}
    ) AS row_of_sequence
)
SELECT
    song.songs,
    sequence.rows,
    to_char(sequence.latest AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS latest,
    md5(concat_ws('/', song.content, sequence.content)) AS content,
    sequence.last_row,
    sequence.content::text AS rows_content,
    sequence.rows_without_sequence,
    sequence.rows_without_song,
    sequence.rows_recommended
FROM song CROSS JOIN sequence;

-- name: row_content
-- What is summed of a row of the sequences query.  The hash of a record is a sum of its columns' hashes, so a sum over rows would
-- stay the same where two of them exchange a song; hashed once more, it does not.
hashtextextended(
    hash_record_extended(
        ROW(sequence_id, song_id, {position}, {listened_at}, {group_id}, {history_id}, {is_recommended}), 0
    )::text,
    0
);

-- name: newer_rows
-- The sequences with rows beyond a mark: how many such rows each has, and what they add to the checksum.
SELECT sequence_id, count(*) AS rows, sum({content}) AS content
FROM ({sequences}
) AS row_of_sequence
WHERE {key} > {mark}
GROUP BY sequence_id;
