-- Features measured by a tool beside the catalogue: one row per song in a table of their own, key, mode and even numbers as text.
CREATE TABLE recordings (
    recording_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, artist text NOT NULL, length_s integer
);
CREATE TABLE audio_features (
    recording_id bigint PRIMARY KEY REFERENCES recordings,
    "key" varchar(3),
    "mode" varchar(8),
    tempo text,
    time_signature text,
    danceability double precision,
    brightness real
);
CREATE TABLE mixes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, created_at timestamptz NOT NULL);
CREATE TABLE mix_items (
    mix_id bigint NOT NULL REFERENCES mixes, recording_id bigint NOT NULL REFERENCES recordings, rank numeric NOT NULL, PRIMARY KEY (mix_id, rank)
);

INSERT INTO recordings (name, artist, length_s) SELECT 'Song ' || n, 'Artist ' || n % 4, 180 + n FROM generate_series(1, 24) AS n;
INSERT INTO audio_features
SELECT n, (ARRAY['C', 'C#', 'D', 'Eb', 'E', 'F', 'F#', 'G', 'Ab', 'A', 'Bb', 'B'])[1 + n % 12], CASE WHEN n % 2 = 0 THEN 'major' ELSE 'minor' END,
    CASE WHEN n = 24 THEN 'unknown' ELSE (80 + n) || '.5' END, '4/4', n / 30.0, n
FROM generate_series(2, 24) AS n;
INSERT INTO mixes (title, created_at) SELECT 'Mix ' || n, '2026-01-01 12:00+00'::timestamptz + n * INTERVAL '1 day' FROM generate_series(1, 60) AS n;
INSERT INTO mix_items
SELECT n, 12 * (n % 2) + (7 * n + place) % 12 + 1, place + 0.5 FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY n, place DESC;
