-- The schema of many tutorials: serial numbers, a junction with a position, likes beside it, features under other names.
CREATE TABLE users (id bigserial PRIMARY KEY, email text UNIQUE);
CREATE TABLE artists (id bigserial PRIMARY KEY, name varchar(200) NOT NULL);
CREATE TABLE albums (id bigserial PRIMARY KEY, title text, artist_id bigint REFERENCES artists, released date);
CREATE TABLE tracks (
    id bigserial PRIMARY KEY,
    title varchar(300) NOT NULL,
    artist_id bigint NOT NULL REFERENCES artists,
    album_id bigint REFERENCES albums,
    duration integer,
    bpm real,
    key_ smallint,
    mode_ smallint,
    play_count bigint NOT NULL DEFAULT 0
);
CREATE TABLE playlists (id bigserial PRIMARY KEY, user_id bigint REFERENCES users, name text, created_at timestamptz DEFAULT now());
CREATE TABLE playlist_tracks (
    id bigserial PRIMARY KEY,
    playlist_id bigint NOT NULL REFERENCES playlists ON DELETE CASCADE,
    track_id bigint NOT NULL REFERENCES tracks,
    position integer NOT NULL,
    UNIQUE (playlist_id, position)
);
CREATE TABLE favorites (user_id bigint REFERENCES users, track_id bigint REFERENCES tracks, created_at timestamptz, PRIMARY KEY (user_id, track_id));

INSERT INTO artists (name) SELECT 'Artist ' || n FROM generate_series(1, 4) AS n;
INSERT INTO albums (title, artist_id) SELECT 'Album ' || n, n FROM generate_series(1, 4) AS n;
INSERT INTO tracks (title, artist_id, album_id, duration, bpm, key_, mode_)
SELECT 'Track ' || n, 1 + n % 4, 1 + n % 4, 180 + n, 80 + n, n % 12, n % 2 FROM generate_series(1, 24) AS n;
INSERT INTO playlists (name, created_at) SELECT 'List ' || n, '2026-01-01 12:00+00'::timestamptz + n * INTERVAL '1 day' FROM generate_series(1, 60) AS n;
-- List n goes eight songs round the first (n even) or second circle of twelve; rows are inserted backwards, so only position tells.
INSERT INTO playlist_tracks (playlist_id, track_id, position)
SELECT n, 12 * (n % 2) + (7 * n + place) % 12 + 1, place FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY n, place DESC;
