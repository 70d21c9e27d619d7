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

-- name: high_water_mark
-- Counts, the latest time, and a checksum that does not depend on the order of rows: the place is part of what is summed, and so
-- are time and group, which decide the split, and the mark of what we proposed, which may be left out.  A record is hashed as it is: faster than its text, and free of the session's zone.
WITH song AS (
    SELECT count(*) AS songs, sum(hashtextextended(row_of_song::text, 0)) AS content
    FROM ({songs}
    ) AS row_of_song
), sequence AS (
    SELECT
        count(*) AS rows,
        max({listened_at}) AS latest,
        sum(hash_record_extended(ROW(sequence_id, song_id, {position}, {listened_at}, {group_id}, {is_recommended}), 0)) AS content
    FROM ({sequences}
    ) AS row_of_sequence
)
SELECT
    song.songs,
    sequence.rows,
    to_char(sequence.latest AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS latest,
    md5(concat_ws('/', song.content, sequence.content)) AS content
FROM song CROSS JOIN sequence;
