-- A player's own database: no playlists worth learning from, but a log of plays, in local times without a zone.
CREATE TABLE users (id serial PRIMARY KEY, name text);
CREATE TABLE songs (
    id serial PRIMARY KEY, title text NOT NULL, artist_name text, album_title text, track_number integer, length interval, year integer
);
CREATE TABLE likes (user_id integer REFERENCES users, song_id integer REFERENCES songs, created_at timestamp, PRIMARY KEY (user_id, song_id));
CREATE TABLE listening_history (
    id serial PRIMARY KEY,
    user_id integer NOT NULL REFERENCES users,
    song_id integer NOT NULL REFERENCES songs,
    played_at timestamp NOT NULL DEFAULT now(),
    duration_played integer,
    completed boolean
);
CREATE INDEX ON listening_history (user_id, played_at);

INSERT INTO users (name) SELECT 'user ' || n FROM generate_series(1, 40) AS n;
INSERT INTO songs (title, artist_name, album_title, track_number, length, year)
SELECT 'Song ' || n, 'Artist ' || n % 4, 'Album ' || n % 6, n % 10, n * INTERVAL '10 seconds', 1990 + n FROM generate_series(1, 24) AS n;
INSERT INTO likes SELECT 1, n, '2026-01-01' FROM generate_series(1, 24) AS n;
-- Each user plays eight songs round a circle, a song every four minutes, on two days.
INSERT INTO listening_history (user_id, song_id, played_at, duration_played, completed)
SELECT n, 12 * (n % 2) + (7 * n + place) % 12 + 1, '2026-01-01 20:00'::timestamp + (n + 50 * day) * INTERVAL '1 day' + place * INTERVAL '4 minutes', 200, true
FROM generate_series(1, 40) AS n, generate_series(0, 7) AS place, generate_series(0, 1) AS day ORDER BY md5(n::text || place::text || day::text);
