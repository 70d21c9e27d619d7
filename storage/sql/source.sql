-- Questions about the user's tables that stand around the user's own queries; {names} are filled in as SQL.

-- name: columns
-- The columns of a query, without reading a row.
SELECT described.* FROM ({query}
) AS described LIMIT 0;

-- name: high_water_mark
-- Counts, the latest time, and a checksum that does not depend on the order of rows: the place is part of what is summed.
WITH song AS (
    SELECT count(*) AS songs, sum(hashtextextended(row_of_song::text, 0)) AS content
    FROM ({songs}
    ) AS row_of_song
), sequence AS (
    SELECT
        count(*) AS rows,
        max({listened_at}) AS latest,
        sum(hashtextextended(concat_ws('/', sequence_id, song_id, {place}), 0)) AS content
    FROM ({sequences}
    ) AS row_of_sequence
)
SELECT
    song.songs,
    sequence.rows,
    to_char(sequence.latest AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS latest,
    md5(concat_ws('/', song.content, sequence.content)) AS content
FROM song CROSS JOIN sequence;
