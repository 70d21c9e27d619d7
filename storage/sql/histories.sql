-- Histories of plays and playlists on their way into the schema music: staged in temporary tables, their songs found by the keys
-- of music.song_key, and brought.  The playlists themselves go through the tables of imports.sql.

-- name: drop_staging
-- Makes room for a second import in one transaction.
DROP TABLE IF EXISTS
    pg_temp.staged_heard, pg_temp.staged_key, pg_temp.staged_play, pg_temp.staged_opinion, pg_temp.staged_place,
    pg_temp.resolved, pg_temp.new_song, pg_temp.changed_song, pg_temp.new_listen, pg_temp.matched_listen,
    pg_temp.keyless_song;

-- name: create_staging
-- What readers deliver.  ref numbers the different songs of an import, in the order in which they are met first.
CREATE TEMPORARY TABLE staged_heard (
    ref integer,
    artist text,
    artist_key text,
    title text,
    album text,
    album_key text,
    isrc text,
    recording_mbid uuid,
    location text,
    duration_ms integer,
    artist_mbid uuid,
    release_mbid uuid,
    disc_number integer,
    track_number integer,
    explicit boolean,
    release_date date,
    danceability double precision,
    energy double precision,
    key smallint,
    loudness double precision,
    mode smallint,
    speechiness double precision,
    acousticness double precision,
    instrumentalness double precision,
    liveness double precision,
    valence double precision,
    tempo double precision,
    time_signature smallint,
    feature_source text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_key (
    ref integer,
    rank smallint, -- 0 for the key that says most; a song is found by the first that is known
    kind text,
    key text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_play (
    ref integer,
    listened_at timestamptz,
    ms_played integer,
    skipped boolean,
    is_recommended boolean,
    listener text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_opinion (
    ref integer,
    event text, -- liked, never_again; none takes back
    happened_at timestamptz,
    listener text,
    place bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_place (
    ref integer,
    playlist_id text,
    added_at timestamptz,
    name text,
    created_at timestamptz,
    place bigint -- of the record in the import
) ON COMMIT DROP;
CREATE TEMPORARY TABLE resolved (
    ref integer PRIMARY KEY,
    song_id text NOT NULL
) ON COMMIT DROP;
CREATE TEMPORARY TABLE new_song (
    song_id text PRIMARY KEY,
    ref integer NOT NULL
) ON COMMIT DROP;
CREATE TEMPORARY TABLE changed_song (
    song_id text PRIMARY KEY -- was there before the import
) ON COMMIT DROP;
CREATE TEMPORARY TABLE new_listen (
    user_id text,
    song_id text,
    listened_at timestamptz,
    ms_played integer,
    skipped boolean,
    is_recommended boolean
) ON COMMIT DROP;
CREATE TEMPORARY TABLE matched_listen (
    user_id text,
    listened_at timestamptz,
    song_id text,
    PRIMARY KEY (user_id, listened_at, song_id) -- of a play that was there, and that this import has told as well
) ON COMMIT DROP;
CREATE TEMPORARY TABLE keyless_song (
    song_id text,
    kind text,
    key text
) ON COMMIT DROP;
CREATE INDEX staged_key_ref_idx ON pg_temp.staged_key (ref, rank);
CREATE INDEX staged_key_key_idx ON pg_temp.staged_key (key);

-- name: copy_heard
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_heard FROM STDIN WITH (FORMAT csv);

-- name: copy_key
-- Takes CSV without a header.
COPY pg_temp.staged_key FROM STDIN WITH (FORMAT csv);

-- name: copy_play
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_play FROM STDIN WITH (FORMAT csv);

-- name: copy_opinion
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_opinion FROM STDIN WITH (FORMAT csv);

-- name: copy_place
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_place FROM STDIN WITH (FORMAT csv);

-- name: copy_keyless
-- Takes CSV without a header.
COPY pg_temp.keyless_song FROM STDIN WITH (FORMAT csv);

-- name: keyless
-- Songs that came in by other ways (a catalogue of CSV files, somebody's own SQL) and can be found by no key yet.
SELECT song.song_id, song.title, artist.name AS artist, song.isrc, song.recording_mbid::text AS recording_mbid
FROM music.song
LEFT JOIN music.artist ON artist.artist_id = song.artist_id
WHERE NOT EXISTS (SELECT FROM music.song_key WHERE song_key.song_id = song.song_id)
    AND ((song.title IS NOT NULL AND artist.name IS NOT NULL) OR song.isrc IS NOT NULL OR song.recording_mbid IS NOT NULL);

-- name: enter_keyless
-- The keys of those songs; an id that two of them share is the first one's.
INSERT INTO music.song_key (key, kind, song_id)
SELECT key, kind, song_id
FROM pg_temp.keyless_song
ORDER BY song_id
ON CONFLICT DO NOTHING;

-- name: analyze_staging
-- Temporary tables are not analysed by themselves, and without their sizes joins are planned for a handful of rows.
ANALYZE pg_temp.staged_heard, pg_temp.staged_key;

-- name: clear_staging
-- Makes room for the next part of an import; the songs that were found stay known by their refs.
TRUNCATE pg_temp.staged_heard, pg_temp.staged_key, pg_temp.staged_play, pg_temp.new_listen;

-- name: kinds
-- The kinds of keys that this import's songs have as their first.
SELECT DISTINCT kind FROM pg_temp.staged_key WHERE rank = 0;

-- name: resolve
-- Finds staged songs by their first key that is known.  A weaker key does not count where the song that it leads to has another id
-- of a stronger kind: two different Spotify ids of one name stay two songs.  Ids that one song has several of decide nothing there.
-- Several at once, too: of those that a weaker key leads to one song, only the ids of the first become that song's.
WITH candidate AS (
    SELECT DISTINCT ON (staged_key.ref) staged_key.ref, staged_key.rank, known.song_id
    FROM pg_temp.staged_key
    JOIN music.song_key AS known ON known.key = staged_key.key
    WHERE NOT EXISTS (SELECT FROM pg_temp.resolved WHERE resolved.ref = staged_key.ref)
        AND NOT EXISTS (
            SELECT
            FROM pg_temp.staged_key AS stronger
            JOIN music.song_key AS other ON other.song_id = known.song_id AND other.kind = stronger.kind
            WHERE stronger.ref = staged_key.ref AND stronger.rank < staged_key.rank
                AND stronger.kind NOT IN ('msid', 'location')
        )
    ORDER BY staged_key.ref, staged_key.rank, known.song_id
), claim AS (
    SELECT
        candidate.ref, stronger.key,
        first_value(stronger.key) OVER (PARTITION BY candidate.song_id, stronger.kind ORDER BY candidate.ref) AS first_key
    FROM candidate
    JOIN pg_temp.staged_key AS stronger ON stronger.ref = candidate.ref AND stronger.rank < candidate.rank
    WHERE stronger.kind NOT IN ('msid', 'location')
)
INSERT INTO pg_temp.resolved (ref, song_id)
SELECT candidate.ref, candidate.song_id
FROM candidate
WHERE candidate.ref NOT IN (SELECT claim.ref FROM claim WHERE claim.key <> claim.first_key); -- hashed, whatever is estimated

-- name: create_songs
-- Makes songs of those whose first key is of one kind and leads to none.
WITH chosen AS (
    SELECT staged_key.key AS song_id, min(staged_key.ref) AS ref
    FROM pg_temp.staged_key
    WHERE staged_key.kind = %(kind)s AND staged_key.rank = 0
        AND NOT EXISTS (SELECT FROM pg_temp.resolved WHERE resolved.ref = staged_key.ref)
    GROUP BY staged_key.key
), created AS (
    INSERT INTO music.song (song_id, source)
    SELECT song_id, %(source)s::text FROM chosen ORDER BY song_id
    ON CONFLICT (song_id) DO NOTHING
    RETURNING song_id
), noted AS (
    INSERT INTO pg_temp.new_song (song_id, ref)
    SELECT created.song_id, chosen.ref FROM created JOIN chosen ON chosen.song_id = created.song_id
)
INSERT INTO pg_temp.resolved (ref, song_id)
SELECT ref, song_id FROM chosen;

-- name: claim_keys
-- Enters all keys of the songs that were found, so that the next file finds them by any of these.
INSERT INTO music.song_key (key, kind, song_id)
SELECT DISTINCT staged_key.key, staged_key.kind, resolved.song_id
FROM pg_temp.resolved
JOIN pg_temp.staged_key ON staged_key.ref = resolved.ref
WHERE NOT EXISTS (SELECT FROM music.song_key WHERE song_key.key = staged_key.key AND song_key.song_id = resolved.song_id)
ORDER BY staged_key.key, resolved.song_id
ON CONFLICT DO NOTHING;

-- name: count_songs
-- The different songs of the import, how many of them are new, and how many others changed.
SELECT
    count(DISTINCT song_id) AS staged,
    (SELECT count(*) FROM pg_temp.new_song) AS added,
    (SELECT count(*) FROM pg_temp.changed_song) AS updated
FROM pg_temp.resolved;

-- name: bring_artists
-- The artists of new songs, and of songs that have none yet: one for each name, whichever source named it first.
WITH wanted AS (
    SELECT
        'artist:' || staged_heard.artist_key AS artist_id, lower((array_agg(staged_heard.artist ORDER BY staged_heard.ref))[1]) AS lowered,
        (array_agg(staged_heard.artist ORDER BY staged_heard.ref))[1] AS name,
        (array_agg(staged_heard.artist_mbid ORDER BY staged_heard.ref) FILTER (WHERE staged_heard.artist_mbid IS NOT NULL))[1] AS mbid
    FROM pg_temp.staged_heard
    JOIN pg_temp.resolved ON resolved.ref = staged_heard.ref
    JOIN music.song ON song.song_id = resolved.song_id
    WHERE song.artist_id IS NULL AND staged_heard.artist_key IS NOT NULL
    GROUP BY staged_heard.artist_key
), added AS (
    INSERT INTO music.artist (artist_id, name, mbid)
    SELECT artist_id, name, mbid FROM wanted
    WHERE NOT EXISTS (SELECT FROM music.artist WHERE lower(artist.name) = wanted.lowered)
    ORDER BY artist_id
    ON CONFLICT (artist_id) DO NOTHING
    RETURNING artist_id
)
SELECT (SELECT count(*) FROM wanted) AS staged, (SELECT count(*) FROM added) AS added, 0::bigint AS updated;

-- name: bring_albums
-- The albums of new songs, and of songs that have none yet.
WITH wanted AS (
    SELECT
        'album:' || staged_heard.album_key AS album_id,
        (array_agg(staged_heard.album ORDER BY staged_heard.ref))[1] AS title,
        (
            array_agg(staged_heard.release_mbid ORDER BY staged_heard.ref) FILTER (WHERE staged_heard.release_mbid IS NOT NULL)
        )[1] AS release_mbid
    FROM pg_temp.staged_heard
    JOIN pg_temp.resolved ON resolved.ref = staged_heard.ref
    JOIN music.song ON song.song_id = resolved.song_id
    WHERE song.album_id IS NULL AND staged_heard.album_key IS NOT NULL
    GROUP BY staged_heard.album_key
), added AS (
    INSERT INTO music.album (album_id, title, release_mbid)
    SELECT album_id, title, release_mbid FROM wanted ORDER BY album_id
    ON CONFLICT (album_id) DO NOTHING
    RETURNING album_id
)
SELECT (SELECT count(*) FROM wanted) AS staged, (SELECT count(*) FROM added) AS added, 0::bigint AS updated;

-- name: fill_songs
-- Fills in what is not known yet of the songs of this import; what is known stays.  Remembers which older ones changed.
WITH told AS (
    SELECT DISTINCT ON (resolved.song_id)
        resolved.song_id, staged_heard.title, COALESCE(artist.artist_id, named.artist_id) AS artist_id, album.album_id,
        staged_heard.isrc, staged_heard.recording_mbid, staged_heard.location, staged_heard.duration_ms,
        staged_heard.disc_number, staged_heard.track_number, staged_heard.explicit, staged_heard.release_date
    FROM pg_temp.resolved
    JOIN pg_temp.staged_heard ON staged_heard.ref = resolved.ref
    LEFT JOIN music.artist ON artist.artist_id = 'artist:' || staged_heard.artist_key
    LEFT JOIN (
        SELECT lower(name) AS lowered, min(artist_id) AS artist_id FROM music.artist GROUP BY lower(name)
    ) AS named ON named.lowered = lower(staged_heard.artist)
    LEFT JOIN music.album ON album.album_id = 'album:' || staged_heard.album_key
    -- of several tellings the fullest
    ORDER BY resolved.song_id, (staged_heard.duration_ms IS NULL), (staged_heard.album IS NULL), staged_heard.ref
), merged AS (
    SELECT
        known.song_id, COALESCE(known.title, told.title) AS title, COALESCE(known.artist_id, told.artist_id) AS artist_id,
        COALESCE(known.artist_ids, '{}'::text[] || COALESCE(known.artist_id, told.artist_id)) AS artist_ids,
        COALESCE(known.album_id, told.album_id) AS album_id, COALESCE(known.isrc, told.isrc) AS isrc,
        COALESCE(known.recording_mbid, told.recording_mbid) AS recording_mbid,
        COALESCE(known.location, told.location) AS location, COALESCE(known.duration_ms, told.duration_ms) AS duration_ms,
        COALESCE(known.disc_number, told.disc_number) AS disc_number,
        COALESCE(known.track_number, told.track_number) AS track_number, COALESCE(known.explicit, told.explicit) AS explicit,
        COALESCE(known.release_date, told.release_date) AS release_date
    FROM told
    JOIN music.song AS known ON known.song_id = told.song_id
), filled AS (
    UPDATE music.song AS known SET (
        title, artist_id, artist_ids, album_id, isrc, recording_mbid, location, duration_ms, disc_number, track_number, explicit,
        release_date
    ) = (
        merged.title, merged.artist_id, merged.artist_ids, merged.album_id, merged.isrc, merged.recording_mbid, merged.location,
        merged.duration_ms, merged.disc_number, merged.track_number, merged.explicit, merged.release_date
    )
    FROM merged
    WHERE known.song_id = merged.song_id AND (
        known.title, known.artist_id, known.artist_ids, known.album_id, known.isrc, known.recording_mbid, known.location,
        known.duration_ms, known.disc_number, known.track_number, known.explicit, known.release_date
    ) IS DISTINCT FROM (
        merged.title, merged.artist_id, merged.artist_ids, merged.album_id, merged.isrc, merged.recording_mbid, merged.location,
        merged.duration_ms, merged.disc_number, merged.track_number, merged.explicit, merged.release_date
    )
    RETURNING known.song_id
)
INSERT INTO pg_temp.changed_song (song_id)
SELECT song_id FROM filled
WHERE NOT EXISTS (SELECT FROM pg_temp.new_song WHERE new_song.song_id = filled.song_id)
ON CONFLICT (song_id) DO NOTHING;

-- name: fill_features
-- Features come as a whole, with whoever measured them, and only to songs that have none: sources are never mixed in one song.
UPDATE music.song AS known SET (
    danceability, energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo,
    time_signature, feature_source
) = (
    told.danceability, told.energy, told.key, told.loudness, told.mode, told.speechiness, told.acousticness,
    told.instrumentalness, told.liveness, told.valence, told.tempo, told.time_signature, told.feature_source
)
FROM (
    SELECT DISTINCT ON (resolved.song_id) resolved.song_id, staged_heard.*
    FROM pg_temp.resolved
    JOIN pg_temp.staged_heard ON staged_heard.ref = resolved.ref
    WHERE staged_heard.feature_source IS NOT NULL
    ORDER BY resolved.song_id, staged_heard.ref
) AS told
WHERE known.song_id = told.song_id AND 0 = num_nonnulls(
    known.danceability, known.energy, known.key, known.loudness, known.mode, known.speechiness, known.acousticness,
    known.instrumentalness, known.liveness, known.valence, known.tempo, known.time_signature, known.feature_source
);

-- name: bring_first_listens
-- Straight from the file where there were no plays before; what a file tells twice comes in once.  In the order of the file, which is
-- that of the time as a rule: sorting them costs more than the index gains.
INSERT INTO music.listen (user_id, song_id, listened_at, ms_played, skipped, is_recommended, source)
SELECT play.listener, resolved.song_id, play.listened_at, play.ms_played, play.skipped, play.is_recommended, %(source)s
FROM pg_temp.staged_play AS play
JOIN pg_temp.resolved ON resolved.ref = play.ref
ON CONFLICT (user_id, listened_at, song_id) DO NOTHING;

-- name: stage_listens
-- The plays of songs that were found, each once, without those that this source has told before, be it under another id of the
-- song.
INSERT INTO pg_temp.new_listen (user_id, song_id, listened_at, ms_played, skipped, is_recommended)
SELECT DISTINCT ON (play.listener, play.listened_at, resolved.song_id)
    play.listener, resolved.song_id, play.listened_at, play.ms_played, play.skipped, play.is_recommended
FROM pg_temp.staged_play AS play
JOIN pg_temp.resolved ON resolved.ref = play.ref
WHERE NOT EXISTS (
    SELECT
    FROM music.listen
    WHERE listen.user_id = play.listener AND listen.listened_at = play.listened_at AND listen.source = %(source)s AND (
        listen.song_id = resolved.song_id OR EXISTS (
            SELECT
            FROM music.song_key AS known
            JOIN music.song_key AS told ON told.key = known.key
            WHERE known.song_id = listen.song_id AND known.kind = 'name' AND told.song_id = resolved.song_id
        )
    )
)
ORDER BY play.listener, play.listened_at, resolved.song_id, play.ms_played DESC NULLS LAST;

-- name: plays_before
-- Whether there are plays, and whether some of them came in by another way; each look ends at the first one that it meets.
SELECT
    EXISTS (SELECT FROM music.listen) AS has_any,
    EXISTS (SELECT FROM music.listen WHERE source IS DISTINCT FROM %(source)s) AS has_others;

-- name: drop_same_plays
-- Leaves out a play that another source has told already, a little earlier or later.  Two plays are one when each is the other's
-- nearest, and each has one other at most in the whole import: what was heard twice within the span stays twice.
WITH near AS (
    SELECT
        new_listen.ctid AS place, new_listen.user_id, new_listen.listened_at, new_listen.song_id,
        known.listened_at AS known_at, known.song_id AS known_song_id,
        greatest(new_listen.listened_at, known.listened_at) - least(new_listen.listened_at, known.listened_at) AS apart
    FROM pg_temp.new_listen
    -- OFFSET 0: by time, through the primary key.  A join by song and only then by time read every play of a favourite song for
    -- each new one: 20 s for 20,000 plays beside a million, once those were analysed.
    CROSS JOIN LATERAL (
        SELECT listen.listened_at, listen.song_id
        FROM music.listen
        WHERE listen.user_id = new_listen.user_id AND listen.source IS DISTINCT FROM %(source)s
            AND listen.listened_at BETWEEN new_listen.listened_at - %(span)s AND new_listen.listened_at + %(span)s
            AND NOT EXISTS (
                SELECT
                FROM pg_temp.matched_listen AS matched
                WHERE matched.user_id = listen.user_id AND matched.listened_at = listen.listened_at
                    AND matched.song_id = listen.song_id
            )
        OFFSET 0
    ) AS known
    WHERE known.song_id = new_listen.song_id OR EXISTS (
        SELECT
        FROM music.song_key AS name
        JOIN music.song_key AS same ON same.key = name.key
        WHERE name.song_id = new_listen.song_id AND name.kind = 'name' AND same.song_id = known.song_id
        OFFSET 0 -- looked up for the few plays that are near, not hashed for all songs
    )
), ranked AS (
    SELECT
        place, user_id, known_at, known_song_id,
        row_number() OVER (PARTITION BY user_id, listened_at, song_id ORDER BY apart, known_at, known_song_id) AS place_of_known,
        row_number() OVER (PARTITION BY user_id, known_at, known_song_id ORDER BY apart, listened_at, song_id) AS place_of_new
    FROM near
), pair AS (
    SELECT place, user_id, known_at, known_song_id FROM ranked WHERE place_of_known = 1 AND place_of_new = 1
), remembered AS (
    INSERT INTO pg_temp.matched_listen (user_id, listened_at, song_id)
    SELECT user_id, known_at, known_song_id FROM pair
)
DELETE FROM pg_temp.new_listen WHERE new_listen.ctid = ANY (ARRAY(SELECT pair.place FROM pair));

-- name: drop_covered_plays
-- Leaves out what lies between the first and the last play that a fuller source has told of the same listener.
DELETE FROM pg_temp.new_listen
USING (
    SELECT listener.user_id, told.first_at, told.last_at
    FROM (SELECT DISTINCT user_id FROM pg_temp.new_listen) AS listener
    CROSS JOIN LATERAL (
        SELECT min(listen.listened_at) AS first_at, max(listen.listened_at) AS last_at
        FROM music.listen
        WHERE listen.user_id = listener.user_id AND listen.source = %(covered_by)s
    ) AS told
) AS covered
WHERE new_listen.user_id = covered.user_id AND new_listen.listened_at BETWEEN covered.first_at AND covered.last_at;

-- name: bring_listens
-- The plays that are new, in the order of the key, which keeps the index dense.  One may still be there at the very same moment,
-- when another of this import was nearer to it.
INSERT INTO music.listen (user_id, song_id, listened_at, ms_played, skipped, is_recommended, source)
SELECT user_id, song_id, listened_at, ms_played, skipped, is_recommended, %(source)s
FROM pg_temp.new_listen
ORDER BY user_id, listened_at, song_id
ON CONFLICT (user_id, listened_at, song_id) DO NOTHING;

-- name: bring_opinions
-- The last word of each listener on each song, unless it takes an earlier one back; counts those that were not known.
WITH last_word AS (
    SELECT DISTINCT ON (opinion.listener, resolved.song_id) opinion.listener, resolved.song_id, opinion.event, opinion.happened_at
    FROM pg_temp.staged_opinion AS opinion
    JOIN pg_temp.resolved ON resolved.ref = opinion.ref
    ORDER BY opinion.listener, resolved.song_id, opinion.happened_at DESC NULLS LAST, opinion.place DESC
)
SELECT
    count(*) AS staged,
    count(recommender.feedback(
        listener => last_word.listener, song_id => last_word.song_id, event => last_word.event, happened_at => last_word.happened_at
    )) AS added,
    0::bigint AS updated
FROM last_word
WHERE event <> 'none' AND NOT EXISTS (
    SELECT
    FROM recommender.feedback AS report
    WHERE report.listener = last_word.listener AND report.song_id = last_word.song_id AND report.event = last_word.event
        AND (last_word.happened_at IS NULL OR report.happened_at >= LEAST(last_word.happened_at, statement_timestamp()))
);

-- name: stage_playlists
-- Hands the playlists over to the tables of imports.sql; a list is placed in the order of its records.
WITH places AS (
    INSERT INTO pg_temp.placed_row (line, playlist_id, position, song_id, added_at)
    SELECT
        place.place, place.playlist_id,
        row_number() OVER (PARTITION BY place.playlist_id ORDER BY place.place) - 1, resolved.song_id, place.added_at
    FROM pg_temp.staged_place AS place
    JOIN pg_temp.resolved ON resolved.ref = place.ref
)
INSERT INTO pg_temp.staged_playlist (line, playlist_id, name, user_id, created_at)
SELECT min(place), playlist_id, min(name), %(listener)s, min(created_at)
FROM pg_temp.staged_place
GROUP BY playlist_id;

-- name: set_session_gap
-- How long a pause ends a session.
UPDATE music.listening SET session_gap = make_interval(secs => 60 * %(minutes)s::double precision)
WHERE session_gap <> make_interval(secs => 60 * %(minutes)s::double precision);
