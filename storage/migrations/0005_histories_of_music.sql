-- Histories and playlists that services export: whose song is which, what else is known of it, and how plays become sequences.

ALTER TABLE music.artist ADD COLUMN mbid uuid;
ALTER TABLE music.album ADD COLUMN release_mbid uuid;
-- path or URL of the song's own file
ALTER TABLE music.song ADD COLUMN location text;

-- The names by which files call a song.  Whatever service an export comes from, it finds its songs here, or enters new ones.
CREATE TABLE music.song_key (
    -- the kind stands before it: spotify:track:..., mbid:..., isrc:..., name:artist/title
    key text NOT NULL,
    kind text NOT NULL
        -- prevents keys that no import would ever look for
        CONSTRAINT song_key_kind_check CHECK (kind IN ('spotify', 'mbid', 'isrc', 'msid', 'item', 'location', 'name')),
    song_id text NOT NULL
        -- prevents keys of songs that are not there, and removes them with the song
        CONSTRAINT song_key_song_id_fkey REFERENCES music.song (song_id) ON DELETE CASCADE,
    -- prevents that a key is told twice; serves finding the song that a file names
    PRIMARY KEY (key, song_id)
);

-- prevents that an id stands for two songs; two songs may well have one name
CREATE UNIQUE INDEX song_key_id_of_one_song_idx ON music.song_key (key) WHERE kind <> 'name';
-- serves deleting a song, and the question how a song is called
CREATE INDEX song_key_song_id_idx ON music.song_key (song_id, kind);

-- How plays become sequences.  One row.
CREATE TABLE music.listening (
    -- a session ends where the next play begins more than this later
    session_gap interval NOT NULL DEFAULT INTERVAL '30 minutes'
        -- prevents sessions of single songs
        CONSTRAINT listening_session_gap_check CHECK (session_gap > INTERVAL '0'),
    -- prevents a second row
    only_row boolean PRIMARY KEY DEFAULT TRUE
        CONSTRAINT listening_only_row_check CHECK (only_row)
);
INSERT INTO music.listening DEFAULT VALUES;

-- Whoever may read the music may read these, too: setup.sql may have been run before this migration.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'recommender_service') THEN
        GRANT SELECT ON music.song_key, music.listening TO recommender_service;
    END IF;
END
$$;
