-- As on hosted PostgreSQL with an API in front: uuid keys, and row-level security by the user that the API announces.
CREATE TABLE profiles (id uuid PRIMARY KEY, username text UNIQUE);
CREATE TABLE songs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    title text NOT NULL,
    artist text,
    album text,
    duration_seconds integer,
    file_url text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE playlists (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner_id uuid REFERENCES profiles, title text, created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE playlist_songs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    playlist_id uuid NOT NULL REFERENCES playlists,
    song_id uuid NOT NULL REFERENCES songs,
    position integer NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON playlist_songs (playlist_id, position);
ALTER TABLE playlists ENABLE ROW LEVEL SECURITY;
ALTER TABLE playlist_songs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_lists ON playlists USING (owner_id = current_setting('app.user_id', true)::uuid);
CREATE POLICY own_songs ON playlist_songs
    USING (EXISTS (SELECT FROM playlists WHERE playlists.id = playlist_id AND owner_id = current_setting('app.user_id', true)::uuid));

INSERT INTO profiles SELECT md5('profile' || n)::uuid, 'user' || n FROM generate_series(1, 5) AS n;
INSERT INTO songs (id, title, artist, album, duration_seconds)
SELECT md5('song' || n)::uuid, 'Song ' || n, 'Artist ' || n % 4, 'Album ' || n % 6, 180 + n FROM generate_series(1, 24) AS n;
INSERT INTO playlists SELECT md5('list' || n)::uuid, md5('profile' || 1 + n % 5)::uuid, 'List ' || n FROM generate_series(1, 60) AS n;
INSERT INTO playlist_songs (playlist_id, song_id, position, added_at)
SELECT md5('list' || n)::uuid, md5('song' || 12 * (n % 2) + (7 * n + place) % 12 + 1)::uuid, place, '2026-01-01 12:00+00'::timestamptz + n * INTERVAL '1 day'
FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY md5(n::text || place::text);
