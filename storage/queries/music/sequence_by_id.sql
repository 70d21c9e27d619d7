-- sequence_by_id: the songs of one sequence in their order; the parameter sequence_id is an id that sequences.sql gives.
--
-- Compare the parameter with the key in the key's own type: a cast of the column would read the whole table (3 s instead of 0.2 ms).
-- A percent sign stands twice in this file (LIKE 'a%%'), because of the parameter.
WITH listen AS (
    SELECT
        user_id, song_id, listened_at,
        listened_at - lag(listened_at) OVER in_time > (SELECT session_gap FROM music.listening) AS begins_session
    FROM music.listen
    WHERE user_id = substring(%(sequence_id)s::text FROM '^listen:(.*):[0-9]+$') AND skipped IS NOT TRUE
    WINDOW in_time AS (ORDER BY listened_at, song_id)
), session AS (
    SELECT
        'listen:' || user_id || ':' || count(*) FILTER (WHERE begins_session) OVER in_time AS sequence_id,
        song_id,
        row_number() OVER in_time AS position,
        listened_at
    FROM listen
    WINDOW in_time AS (ORDER BY listened_at, song_id)
)
SELECT
    playlist_song.playlist_id AS sequence_id,
    playlist_song.song_id,
    playlist_song.position::bigint AS position,
    COALESCE(playlist.created_at, playlist_song.added_at) AS listened_at
FROM music.playlist_song
JOIN music.playlist ON playlist.playlist_id = playlist_song.playlist_id
WHERE playlist_song.playlist_id = %(sequence_id)s::text
UNION ALL
SELECT sequence_id, song_id, position, listened_at
FROM session
WHERE sequence_id = %(sequence_id)s::text
ORDER BY position;
