-- sequences: one row per song of a playlist or a listening session, ordered by sequence and place.
--
-- Required are sequence_id and song_id.  Rows of one sequence come together and in their order; position and listened_at (with
-- its time zone) tell more about it.  Versions of one list share a group_id and are never split between training and test; sessions
-- of one listener share a history_id, so that training knows what was heard before one.
--
-- Listens become sequences `listen:<user>:<number>`: a session ends where the next song begins more than music.listening.session_gap
-- (30 minutes) later.  What the listener skipped is in none: it is not what anybody wanted to hear next.
WITH listen AS (
    SELECT
        user_id, song_id, listened_at, ms_played, skipped, is_recommended,
        listened_at - lag(listened_at) OVER in_time > (SELECT session_gap FROM music.listening) AS begins_session
    FROM music.listen
    WHERE skipped IS NOT TRUE
    WINDOW in_time AS (PARTITION BY user_id ORDER BY listened_at, song_id)
)
SELECT
    playlist_song.playlist_id AS sequence_id,
    playlist_song.song_id,
    playlist_song.position::bigint AS position,
    COALESCE(playlist.created_at, playlist_song.added_at) AS listened_at,
    NULL::integer AS ms_played,
    NULL::boolean AS skipped,
    NULL::boolean AS is_recommended,
    playlist.group_id,
    NULL::text AS history_id
FROM music.playlist_song
JOIN music.playlist ON playlist.playlist_id = playlist_song.playlist_id
UNION ALL
SELECT
    'listen:' || user_id || ':' || count(*) FILTER (WHERE begins_session) OVER in_time AS sequence_id,
    song_id,
    row_number() OVER in_time AS position,
    listened_at,
    ms_played,
    skipped,
    is_recommended,
    NULL AS group_id,
    'listen:' || user_id AS history_id
FROM listen
WINDOW in_time AS (PARTITION BY user_id ORDER BY listened_at, song_id)
ORDER BY sequence_id, position;
