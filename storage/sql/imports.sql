-- Imports.  Rows are copied into temporary tables that end with the transaction, checked there, and only then brought into the
-- schema music: until the first of the "bring" statements nothing that lasts has changed.

-- name: lock_imports
-- One import at a time, since two of them could each find the other's ids free; ends with the transaction, the number is ours.
SELECT pg_advisory_xact_lock(4517000002);

-- name: drop_staging
-- Makes room for a second import in one transaction.
DROP TABLE IF EXISTS
    pg_temp.staged_song, pg_temp.staged_playlist, pg_temp.staged_row, pg_temp.placed_row, pg_temp.touched_playlist;

-- name: create_staging
-- What every importer delivers; line is the row's line in its file.  No constraints: bad rows are counted, not refused.
CREATE TEMPORARY TABLE staged_song (
    line bigint,
    song_id text,
    title text,
    artist_id text,
    artist_name text,
    album_id text,
    album_title text,
    all_artist_ids text, -- separated by semicolons
    disc_number integer,
    track_number integer,
    duration_ms integer,
    explicit boolean,
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
    isrc text,
    recording_mbid uuid,
    release_date date,
    feature_source text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_playlist (
    line bigint,
    playlist_id text,
    name text,
    group_id text,
    user_id text,
    chunk integer,
    created_at timestamptz
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_row (
    line bigint,
    playlist_id text,
    position integer, -- NULL where the order is that of added_at
    song_id text,
    added_at timestamptz
) ON COMMIT DROP;
CREATE TEMPORARY TABLE placed_row (
    line bigint,
    playlist_id text,
    position integer,
    song_id text,
    added_at timestamptz,
    PRIMARY KEY (playlist_id, position) -- prevents two songs at one place
) ON COMMIT DROP;
CREATE TEMPORARY TABLE touched_playlist (
    playlist_id text PRIMARY KEY, -- prevents that a list with a new name and new rows counts twice
    is_new boolean,
    rows_changed boolean
) ON COMMIT DROP;

-- name: copy_songs
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_song (
    line, song_id, title, artist_id, artist_name, album_id, album_title, all_artist_ids, disc_number, track_number, duration_ms,
    explicit, danceability, energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo,
    time_signature, isrc, recording_mbid, release_date, feature_source
) FROM STDIN WITH (FORMAT csv);

-- name: copy_playlists
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_playlist (line, playlist_id, name, group_id, user_id, chunk, created_at) FROM STDIN WITH (FORMAT csv);

-- name: copy_rows
-- Takes CSV without a header, an empty field for NULL.
COPY pg_temp.staged_row (line, playlist_id, position, song_id, added_at) FROM STDIN WITH (FORMAT csv);

-- name: prefix_songs
-- Keeps the ids of this import apart from those of others; NULL stays NULL.
UPDATE pg_temp.staged_song SET
    song_id = %(prefix)s::text || song_id,
    artist_id = %(prefix)s::text || artist_id,
    album_id = %(prefix)s::text || album_id,
    all_artist_ids = %(prefix)s::text || replace(all_artist_ids, ';', ';' || %(prefix)s::text);

-- name: prefix_playlists
-- Keeps the ids of this import apart from those of others; NULL stays NULL.
UPDATE pg_temp.staged_playlist SET
    playlist_id = %(prefix)s::text || playlist_id,
    group_id = %(prefix)s::text || group_id,
    user_id = %(prefix)s::text || user_id;

-- name: prefix_rows
-- Keeps the ids of this import apart from those of others.
UPDATE pg_temp.staged_row SET playlist_id = %(prefix)s::text || playlist_id, song_id = %(prefix)s::text || song_id;

-- name: drop_repeated_songs
-- Keeps the first row of each song and tells about the others.
WITH numbered AS (
    SELECT line, row_number() OVER (PARTITION BY song_id ORDER BY line) AS occurrence FROM pg_temp.staged_song
), dropped AS (
    DELETE FROM pg_temp.staged_song
    USING numbered
    WHERE staged_song.line = numbered.line AND numbered.occurrence > 1
    RETURNING staged_song.line
)
SELECT count(*) AS count, min(line) AS first_line FROM dropped;

-- name: drop_repeated_playlists
-- Keeps the first row of each playlist and tells about the others.
WITH numbered AS (
    SELECT line, row_number() OVER (PARTITION BY playlist_id ORDER BY line) AS occurrence FROM pg_temp.staged_playlist
), dropped AS (
    DELETE FROM pg_temp.staged_playlist
    USING numbered
    WHERE staged_playlist.line = numbered.line AND numbered.occurrence > 1
    RETURNING staged_playlist.line
)
SELECT count(*) AS count, min(line) AS first_line FROM dropped;

-- name: place_by_position
-- Keeps the first row for each place of a playlist.
INSERT INTO pg_temp.placed_row (line, playlist_id, position, song_id, added_at)
SELECT DISTINCT ON (playlist_id, position) line, playlist_id, position, song_id, added_at
FROM pg_temp.staged_row
ORDER BY playlist_id, position, line;

-- name: place_by_time
-- Numbers each playlist's rows from 0 by their time; rows of the same second stay in the order of the file.
INSERT INTO pg_temp.placed_row (line, playlist_id, position, song_id, added_at)
SELECT line, playlist_id, row_number() OVER (PARTITION BY playlist_id ORDER BY added_at, line) - 1, song_id, added_at
FROM pg_temp.staged_row;

-- name: rows_without_place
-- Rows whose place was taken by an earlier one.
SELECT count(*) AS count, min(line) AS first_line
FROM pg_temp.staged_row
WHERE NOT EXISTS (SELECT FROM pg_temp.placed_row WHERE placed_row.line = staged_row.line);

-- name: stage_bare_songs
-- Songs that are named in playlists only.
INSERT INTO pg_temp.staged_song (line, song_id)
SELECT min(line), song_id
FROM pg_temp.placed_row
WHERE NOT EXISTS (SELECT FROM pg_temp.staged_song WHERE staged_song.song_id = placed_row.song_id)
GROUP BY song_id;

-- name: stage_bare_playlists
-- Playlists of which only the songs are known.
INSERT INTO pg_temp.staged_playlist (line, playlist_id)
SELECT min(line), playlist_id
FROM pg_temp.placed_row
WHERE NOT EXISTS (SELECT FROM pg_temp.staged_playlist WHERE staged_playlist.playlist_id = placed_row.playlist_id)
GROUP BY playlist_id;

-- name: analyze_staging
-- Temporary tables are not analysed by themselves, and without their sizes joins are planned for a handful of rows.
ANALYZE pg_temp.staged_song, pg_temp.staged_playlist, pg_temp.placed_row;

-- name: song_of_another_source
-- The first staged song whose id came from elsewhere.
SELECT staged_song.song_id AS id, song.source
FROM pg_temp.staged_song
JOIN music.song ON song.song_id = staged_song.song_id
WHERE song.source IS DISTINCT FROM %(source)s::text
ORDER BY staged_song.line, staged_song.song_id
LIMIT 1;

-- name: playlist_of_another_source
-- The first staged playlist whose id came from elsewhere.
SELECT staged_playlist.playlist_id AS id, playlist.source
FROM pg_temp.staged_playlist
JOIN music.playlist ON playlist.playlist_id = staged_playlist.playlist_id
WHERE playlist.source IS DISTINCT FROM %(source)s::text
ORDER BY staged_playlist.line, staged_playlist.playlist_id
LIMIT 1;

-- name: bring_artists
-- Artists of the staged songs with the first name that the file gives; xmax is 0 in a row that is new.
WITH staged AS (
    SELECT artist_id, (array_agg(artist_name ORDER BY line) FILTER (WHERE artist_name IS NOT NULL))[1] AS name
    FROM pg_temp.staged_song
    WHERE artist_id IS NOT NULL
    GROUP BY artist_id
), brought AS (
    INSERT INTO music.artist AS known (artist_id, name)
    SELECT artist_id, name FROM staged
    ON CONFLICT (artist_id) DO UPDATE SET name = EXCLUDED.name
    WHERE EXCLUDED.name IS NOT NULL AND known.name IS DISTINCT FROM EXCLUDED.name
    RETURNING xmax = 0 AS is_new
)
SELECT
    (SELECT count(*) FROM staged) AS staged,
    count(*) FILTER (WHERE is_new) AS added,
    count(*) FILTER (WHERE NOT is_new) AS updated
FROM brought;

-- name: bring_albums
-- Albums of the staged songs with the first title that the file gives; a compilation of several artists has none of its own.
WITH staged AS (
    SELECT
        album_id,
        (array_agg(album_title ORDER BY line) FILTER (WHERE album_title IS NOT NULL))[1] AS title,
        CASE WHEN count(DISTINCT artist_id) = 1 THEN min(artist_id) END AS artist_id
    FROM pg_temp.staged_song
    WHERE album_id IS NOT NULL
    GROUP BY album_id
), brought AS (
    INSERT INTO music.album AS known (album_id, title, artist_id)
    SELECT album_id, title, artist_id FROM staged
    ON CONFLICT (album_id) DO UPDATE SET
        title = COALESCE(EXCLUDED.title, known.title),
        artist_id = COALESCE(EXCLUDED.artist_id, known.artist_id)
    WHERE (known.title, known.artist_id)
        IS DISTINCT FROM (COALESCE(EXCLUDED.title, known.title), COALESCE(EXCLUDED.artist_id, known.artist_id))
    RETURNING xmax = 0 AS is_new
)
SELECT
    (SELECT count(*) FROM staged) AS staged,
    count(*) FILTER (WHERE is_new) AS added,
    count(*) FILTER (WHERE NOT is_new) AS updated
FROM brought;

-- name: bring_songs
-- Staged songs; a field that the file leaves empty keeps what is known, and a row that says nothing new is not written.
WITH merged AS (
    SELECT
        staged.song_id,
        COALESCE(staged.title, known.title) AS title, COALESCE(staged.artist_id, known.artist_id) AS artist_id,
        COALESCE(string_to_array(staged.all_artist_ids, ';'), known.artist_ids) AS artist_ids,
        COALESCE(staged.album_id, known.album_id) AS album_id,
        COALESCE(staged.disc_number, known.disc_number) AS disc_number,
        COALESCE(staged.track_number, known.track_number) AS track_number,
        COALESCE(staged.duration_ms, known.duration_ms) AS duration_ms,
        COALESCE(staged.explicit, known.explicit) AS explicit,
        COALESCE(staged.danceability, known.danceability) AS danceability, COALESCE(staged.energy, known.energy) AS energy,
        COALESCE(staged.key, known.key) AS key, COALESCE(staged.loudness, known.loudness) AS loudness,
        COALESCE(staged.mode, known.mode) AS mode, COALESCE(staged.speechiness, known.speechiness) AS speechiness,
        COALESCE(staged.acousticness, known.acousticness) AS acousticness,
        COALESCE(staged.instrumentalness, known.instrumentalness) AS instrumentalness,
        COALESCE(staged.liveness, known.liveness) AS liveness, COALESCE(staged.valence, known.valence) AS valence,
        COALESCE(staged.tempo, known.tempo) AS tempo,
        COALESCE(staged.time_signature, known.time_signature) AS time_signature, COALESCE(staged.isrc, known.isrc) AS isrc,
        COALESCE(staged.recording_mbid, known.recording_mbid) AS recording_mbid,
        COALESCE(staged.release_date, known.release_date) AS release_date,
        COALESCE(staged.feature_source, known.feature_source) AS feature_source
    FROM pg_temp.staged_song AS staged
    LEFT JOIN music.song AS known ON known.song_id = staged.song_id
), changed AS (
    SELECT
        song_id, title, artist_id, artist_ids, album_id, disc_number, track_number, duration_ms, explicit, danceability,
        energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo, time_signature,
        isrc, recording_mbid, release_date, feature_source
    FROM merged
    EXCEPT
    SELECT
        song_id, title, artist_id, artist_ids, album_id, disc_number, track_number, duration_ms, explicit, danceability,
        energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo, time_signature,
        isrc, recording_mbid, release_date, feature_source
    FROM music.song
    WHERE song_id IN (SELECT song_id FROM pg_temp.staged_song)
), brought AS (
    INSERT INTO music.song (
        song_id, title, artist_id, artist_ids, album_id, disc_number, track_number, duration_ms, explicit, danceability,
        energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo, time_signature,
        isrc, recording_mbid, release_date, feature_source, source
    )
    SELECT
        song_id, title, artist_id, artist_ids, album_id, disc_number, track_number, duration_ms, explicit, danceability,
        energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo, time_signature,
        isrc, recording_mbid, release_date, feature_source, %(source)s::text
    FROM changed
    ON CONFLICT (song_id) DO UPDATE SET (
        title, artist_id, artist_ids, album_id, disc_number, track_number, duration_ms, explicit, danceability, energy, key,
        loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo, time_signature, isrc,
        recording_mbid, release_date, feature_source
    ) = (
        EXCLUDED.title, EXCLUDED.artist_id, EXCLUDED.artist_ids, EXCLUDED.album_id, EXCLUDED.disc_number,
        EXCLUDED.track_number, EXCLUDED.duration_ms, EXCLUDED.explicit, EXCLUDED.danceability, EXCLUDED.energy, EXCLUDED.key,
        EXCLUDED.loudness, EXCLUDED.mode, EXCLUDED.speechiness, EXCLUDED.acousticness, EXCLUDED.instrumentalness,
        EXCLUDED.liveness, EXCLUDED.valence, EXCLUDED.tempo, EXCLUDED.time_signature, EXCLUDED.isrc, EXCLUDED.recording_mbid,
        EXCLUDED.release_date, EXCLUDED.feature_source
    )
    RETURNING xmax = 0 AS is_new
)
SELECT
    (SELECT count(*) FROM merged) AS staged,
    count(*) FILTER (WHERE is_new) AS added,
    count(*) FILTER (WHERE NOT is_new) AS updated
FROM brought;

-- name: bring_playlists
-- Staged playlists; a field that the file leaves empty keeps what is known.  Remembers which lists are new or say something new.
WITH brought AS (
    INSERT INTO music.playlist AS known (playlist_id, name, group_id, user_id, chunk, created_at, source)
    SELECT playlist_id, name, group_id, user_id, chunk, created_at, %(source)s::text FROM pg_temp.staged_playlist
    ON CONFLICT (playlist_id) DO UPDATE SET
        name = COALESCE(EXCLUDED.name, known.name),
        group_id = COALESCE(EXCLUDED.group_id, known.group_id),
        user_id = COALESCE(EXCLUDED.user_id, known.user_id),
        chunk = COALESCE(EXCLUDED.chunk, known.chunk),
        created_at = COALESCE(EXCLUDED.created_at, known.created_at)
    WHERE (known.name, known.group_id, known.user_id, known.chunk, known.created_at) IS DISTINCT FROM (
        COALESCE(EXCLUDED.name, known.name), COALESCE(EXCLUDED.group_id, known.group_id),
        COALESCE(EXCLUDED.user_id, known.user_id), COALESCE(EXCLUDED.chunk, known.chunk),
        COALESCE(EXCLUDED.created_at, known.created_at)
    )
    RETURNING playlist_id, xmax = 0 AS is_new
)
INSERT INTO pg_temp.touched_playlist (playlist_id, is_new, rows_changed)
SELECT playlist_id, is_new, is_new FROM brought;

-- name: compare_rows
-- Counts the differing places of the staged playlists and remembers the lists that have any.
WITH known AS (
    SELECT playlist_id, position, song_id, added_at
    FROM music.playlist_song
    WHERE playlist_id IN (SELECT playlist_id FROM pg_temp.staged_playlist)
), different AS (
    SELECT playlist_id, placed_row.song_id AS now, known.song_id AS before
    FROM pg_temp.placed_row
    FULL JOIN known USING (playlist_id, position)
    WHERE (placed_row.song_id, placed_row.added_at) IS DISTINCT FROM (known.song_id, known.added_at)
), remembered AS (
    INSERT INTO pg_temp.touched_playlist (playlist_id, is_new, rows_changed)
    SELECT DISTINCT playlist_id, FALSE, TRUE FROM different
    ON CONFLICT (playlist_id) DO UPDATE SET rows_changed = TRUE
)
SELECT
    (SELECT count(*) FROM pg_temp.placed_row) AS staged,
    count(*) FILTER (WHERE before IS NULL) AS added,
    count(*) FILTER (WHERE before IS NOT NULL AND now IS NOT NULL) AS updated,
    count(*) FILTER (WHERE now IS NULL) AS removed
FROM different;

-- name: count_playlists
-- What happened to the staged playlists; one with other rows counts as updated.
SELECT
    (SELECT count(*) FROM pg_temp.staged_playlist) AS staged,
    count(*) FILTER (WHERE is_new) AS added,
    count(*) FILTER (WHERE NOT is_new) AS updated
FROM pg_temp.touched_playlist;

-- name: clear_changed_playlists
-- Takes the old rows out of lists that are replaced as a whole.
DELETE FROM music.playlist_song
WHERE playlist_id IN (SELECT playlist_id FROM pg_temp.touched_playlist WHERE rows_changed);

-- name: bring_rows
-- The rows of lists that are new or replaced; in the order of the key, which keeps the index dense.
INSERT INTO music.playlist_song (playlist_id, position, song_id, added_at)
SELECT placed_row.playlist_id, placed_row.position, placed_row.song_id, placed_row.added_at
FROM pg_temp.placed_row
JOIN pg_temp.touched_playlist ON touched_playlist.playlist_id = placed_row.playlist_id
WHERE touched_playlist.rows_changed
ORDER BY placed_row.playlist_id, placed_row.position;

-- name: song_not_of_source
-- Any song that is not of this source; ends at the first one that it meets.
SELECT song_id AS id, source
FROM music.song
WHERE source IS DISTINCT FROM %(source)s
LIMIT 1;
