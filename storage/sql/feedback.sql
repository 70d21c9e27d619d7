-- What listeners did with songs, and what follows from it for their next answers; {names} are filled in as SQL.

-- name: add
-- Takes reports in, each once; counts those that were new.  In one order, so that two who report the same at once do not block
-- each other.
SELECT count(
    recommender.feedback(
        listener, song_id, event, happened_at, ms_played, request_id, model_id, is_recommended, artist_id
    )
)
FROM (
    SELECT listener, song_id, event, happened_at, ms_played, request_id, model_id, is_recommended, artist_id
    FROM unnest(
        %(listeners)s::text[], %(song_ids)s::text[], %(events)s::text[], %(happened_at)s::timestamptz[], %(ms_played)s::integer[],
        %(request_ids)s::bigint[], %(model_ids)s::text[], %(is_recommended)s::boolean[], %(artist_ids)s::text[]
    ) AS report (listener, song_id, event, happened_at, ms_played, request_id, model_id, is_recommended, artist_id)
    ORDER BY listener, happened_at DESC, event, COALESCE(song_id, artist_id)
) AS report;

-- name: tastes
-- What several listeners do not want to hear: each list is read through an index.
SELECT
    ARRAY(
        SELECT report.song_id
        FROM recommender.feedback AS report
        WHERE report.listener = wanted.listener AND report.event = 'never_again' AND report.song_id IS NOT NULL
    ) AS never,
    ARRAY(
        SELECT report.artist_id
        FROM recommender.feedback AS report
        WHERE report.listener = wanted.listener AND report.event = 'never_again' AND report.artist_id IS NOT NULL
    ) AS never_artists,
    ARRAY(
        SELECT DISTINCT report.song_id
        FROM recommender.feedback AS report
        WHERE report.listener = wanted.listener AND report.happened_at > wanted.skipped_since AND report.event = 'skipped'
        {skips}
    ) AS skipped,
    ARRAY(
        SELECT report.song_id
        FROM recommender.feedback AS report
        WHERE report.listener = wanted.listener AND report.happened_at > wanted.played_since AND report.event = 'played'
        {plays}
    ) AS played
FROM (
    SELECT
        listener,
        statement_timestamp() - make_interval(secs => 86400 * LEAST(skipped_days, 36500)) AS skipped_since,
        statement_timestamp() - make_interval(secs => 86400 * LEAST(played_days, 36500)) AS played_since,
        place
    FROM unnest(%(listeners)s::text[], %(skipped_days)s::double precision[], %(played_days)s::double precision[])
        WITH ORDINALITY AS asked (listener, skipped_days, played_days, place)
) AS wanted
ORDER BY wanted.place;

-- name: plays
-- The plays that the user's own query knows of one listener; whether or not it looks at `since`, older ones do not count, and
-- neither does what it says was skipped, where it has such a column.
UNION
SELECT play.song_id::text
FROM ({query}
) AS play
WHERE play.song_id IS NOT NULL AND play.listened_at > wanted.played_since
    AND (to_jsonb(play) ->> 'skipped')::boolean IS NOT TRUE

-- name: skips
-- What the same query says was skipped.
UNION
SELECT play.song_id::text
FROM ({query}
) AS play
WHERE play.song_id IS NOT NULL AND play.listened_at > wanted.skipped_since AND (to_jsonb(play) ->> 'skipped')::boolean
