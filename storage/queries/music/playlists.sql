-- playlists: the playlists to choose from, the newest first; the parameters q (words, "" for all, or the id of one) and count.
--
-- Optional: without this file a playlist can only be asked for by its id.  Required are playlist_id, as sequence_by_id takes it,
-- name and n_songs.  A percent sign stands twice in this file (LIKE 'a%%'), because of the parameters.
--
-- Sessions of listens, cut as in sequences.sql, are offered of the three users who listened last: to number the sessions of a user
-- means reading all listens of that user.  Their times are those of the connection's zone; where there are several users, the name
-- says whose session it is.
WITH RECURSIVE asked AS (
    SELECT regexp_split_to_array(btrim(lower(%(q)s::text)), '\s+') AS words, %(q)s::text AS id
), named AS (
    SELECT
        playlist_id,
        COALESCE(NULLIF(name, ''), playlist_id) AS name,
        created_at AS made_at
    FROM music.playlist
), found AS (
    SELECT named.playlist_id, named.name, named.made_at, NULL::bigint AS n_songs
    FROM named CROSS JOIN asked
    WHERE named.playlist_id = asked.id OR NOT EXISTS (
        SELECT FROM unnest(asked.words) AS word WHERE strpos(lower(named.name), word) = 0
    )
    ORDER BY named.playlist_id = asked.id DESC, named.made_at DESC NULLS LAST, named.playlist_id
    LIMIT %(count)s::integer
), listener AS (
    -- From user to user through the primary key: a DISTINCT would read every listen.
    (SELECT user_id FROM music.listen ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT listen.user_id FROM music.listen WHERE listen.user_id > listener.user_id ORDER BY listen.user_id LIMIT 1)
    FROM listener
    WHERE listener.user_id IS NOT NULL
), latest AS (
    SELECT
        user_id,
        (SELECT max(listen.listened_at) FROM music.listen WHERE listen.user_id = listener.user_id) AS listened_at
    FROM listener
    WHERE user_id IS NOT NULL
    ORDER BY listened_at DESC
    LIMIT 3
), listen AS (
    SELECT
        listen.user_id,
        listen.listened_at,
        listen.listened_at - lag(listen.listened_at) OVER in_time > (SELECT session_gap FROM music.listening) AS begins_session,
        row_number() OVER in_time AS place
    FROM latest
    JOIN music.listen ON listen.user_id = latest.user_id AND listen.skipped IS NOT TRUE
    WINDOW in_time AS (PARTITION BY listen.user_id ORDER BY listen.listened_at, listen.song_id)
), session_start AS (
    SELECT
        user_id,
        listened_at AS made_at,
        row_number() OVER in_time - 1 AS session_number,
        lead(place) OVER in_time - place AS n_songs,
        place
    FROM listen
    WHERE begins_session OR place = 1
    WINDOW in_time AS (PARTITION BY user_id ORDER BY place)
), counted AS (
    SELECT
        'listen:' || user_id || ':' || session_number AS playlist_id,
        user_id,
        made_at,
        COALESCE(
            n_songs,
            (SELECT count(*) FROM music.listen WHERE listen.user_id = session_start.user_id AND skipped IS NOT TRUE) - place + 1
        ) AS n_songs
    FROM session_start
), session AS (
    SELECT
        playlist_id, made_at, n_songs,
        'Session of ' || to_char(made_at, 'YYYY-MM-DD HH24:MI') || ', ' || n_songs || ' songs'
            || CASE WHEN (SELECT count(*) FROM latest) > 1 THEN ', ' || user_id ELSE '' END AS name
    FROM counted
    WHERE n_songs > 1
), offered AS (
    SELECT playlist_id, name, made_at, n_songs FROM found
    UNION ALL
    SELECT session.playlist_id, session.name, session.made_at, session.n_songs
    FROM session CROSS JOIN asked
    WHERE session.playlist_id = asked.id OR NOT EXISTS (
        SELECT FROM unnest(asked.words) AS word WHERE strpos(lower(session.name), word) = 0
    )
), chosen AS (
    SELECT offered.playlist_id, offered.name, offered.made_at, offered.n_songs, offered.playlist_id = asked.id AS is_asked
    FROM offered CROSS JOIN asked
    ORDER BY is_asked DESC, offered.made_at DESC NULLS LAST, offered.playlist_id
    LIMIT %(count)s::integer
)
SELECT
    chosen.playlist_id,
    chosen.name,
    COALESCE(
        chosen.n_songs,
        (SELECT count(*) FROM music.playlist_song WHERE playlist_song.playlist_id = chosen.playlist_id)
    ) AS n_songs
FROM chosen
ORDER BY chosen.is_asked DESC, chosen.made_at DESC NULLS LAST, chosen.playlist_id;
