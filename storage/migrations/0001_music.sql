-- The tables of the demo and of imports.  Somebody with tables of their own needs none of these: the query files read theirs.
--
-- Ids are text, as they stand in the imported file.  Everything that a file may not know is nullable.
-- Foreign keys are checked at once unless a bulk import says SET CONSTRAINTS ALL DEFERRED, which moves the check to its commit.

CREATE SCHEMA IF NOT EXISTS music;

CREATE TABLE music.artist (
    artist_id text PRIMARY KEY,
    name text
);

CREATE TABLE music.album (
    album_id text PRIMARY KEY,
    title text,
    artist_id text
        -- prevents an album by nobody
        CONSTRAINT album_artist_id_fkey REFERENCES music.artist (artist_id) DEFERRABLE
);

CREATE TABLE music.song (
    song_id text PRIMARY KEY,
    title text,
    -- the primary artist; artist_ids has all of them, the primary one included
    artist_id text
        -- prevents a song by nobody
        CONSTRAINT song_artist_id_fkey REFERENCES music.artist (artist_id) DEFERRABLE,
    artist_ids text[],
    album_id text
        -- prevents a song on an album that is not there
        CONSTRAINT song_album_id_fkey REFERENCES music.album (album_id) DEFERRABLE,
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
    -- who measured the features: columns of different sources are never mixed unscaled
    feature_source text,
    source text,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- prevents pitch classes that do not exist; -1 is "no key found"
    CONSTRAINT song_key_check CHECK (key BETWEEN -1 AND 11),
    -- prevents lengths whose logarithm would be no number
    CONSTRAINT song_duration_ms_check CHECK (duration_ms >= 0)
);

-- serves deleting an artist or an album, which looks for its songs
CREATE INDEX song_artist_id_idx ON music.song (artist_id);
CREATE INDEX song_album_id_idx ON music.song (album_id);
-- serves deleting an artist, which looks for their albums
CREATE INDEX album_artist_id_idx ON music.album (artist_id);

CREATE TABLE music.playlist (
    playlist_id text PRIMARY KEY,
    name text,
    -- dated versions of one list share a group: they are never split between training and test
    group_id text,
    user_id text,
    -- the part of a listening history that was cut into pieces, counted from 0
    chunk integer,
    -- the time of this version; NULL where it is not known
    created_at timestamptz,
    source text,
    -- prevents that a playlist is taken for a listening session, whose ids begin like that (see sequences.sql)
    CONSTRAINT playlist_playlist_id_check CHECK (playlist_id NOT LIKE 'listen:%')
);

CREATE TABLE music.playlist_song (
    playlist_id text NOT NULL
        -- prevents songs of a list that is not there, and removes them with it
        CONSTRAINT playlist_song_playlist_id_fkey REFERENCES music.playlist (playlist_id) ON DELETE CASCADE DEFERRABLE,
    position integer NOT NULL,
    song_id text NOT NULL
        -- prevents places without a song
        CONSTRAINT playlist_song_song_id_fkey REFERENCES music.song (song_id) DEFERRABLE,
    added_at timestamptz,
    -- prevents two songs at one place; serves reading one list in its order
    PRIMARY KEY (playlist_id, position)
);

-- serves deleting a song, and the question which lists hold it
CREATE INDEX playlist_song_song_id_idx ON music.playlist_song (song_id);

CREATE TABLE music.listen (
    user_id text NOT NULL,
    song_id text NOT NULL
        -- prevents plays of a song that is not there
        CONSTRAINT listen_song_id_fkey REFERENCES music.song (song_id) DEFERRABLE,
    -- when the play began
    listened_at timestamptz NOT NULL,
    ms_played integer,
    skipped boolean,
    -- whether it was played because a recommender proposed it
    is_recommended boolean,
    source text,
    -- prevents that a play is counted twice when overlapping files are imported; serves reading one user in time
    PRIMARY KEY (user_id, listened_at, song_id)
);

-- serves deleting a song, and the question who played it
CREATE INDEX listen_song_id_idx ON music.listen (song_id);
