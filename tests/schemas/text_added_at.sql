-- A copy of a streaming service's library: ids of 22 letters, several artists in one text, and only the time of adding for an order.
CREATE TABLE track (
    track_id varchar(22) PRIMARY KEY,
    track_name text,
    artists text,
    album_name text,
    duration_ms integer,
    explicit text,
    isrc text,
    popularity integer,
    danceability double precision,
    energy double precision,
    tempo double precision
);
CREATE TABLE playlist (playlist_id varchar(22) PRIMARY KEY, playlist_name text, snapshot_id text);
CREATE TABLE playlist_track (
    playlist_id varchar(22) NOT NULL REFERENCES playlist,
    track_id varchar(22) NOT NULL REFERENCES track,
    added_at timestamptz NOT NULL,
    added_by text,
    PRIMARY KEY (playlist_id, track_id)
);

INSERT INTO track
SELECT rpad('t' || n, 22, 'x'), 'Track ' || n, 'Artist ' || n % 4 || ';Guest ' || n % 3, 'Album ' || n % 6, 180000 + n,
    CASE WHEN n % 3 = 0 THEN 'True' ELSE 'False' END, 'XX000' || n, n, n / 30.0, 1 - n / 30.0, 80 + n
FROM generate_series(1, 24) AS n;
INSERT INTO playlist SELECT rpad('p' || n, 22, 'y'), 'List ' || n FROM generate_series(1, 60) AS n;
INSERT INTO playlist_track
SELECT rpad('p' || n, 22, 'y'), rpad('t' || 12 * (n % 2) + (7 * n + place) % 12 + 1, 22, 'x'),
    '2026-01-01 12:00+00'::timestamptz + n * INTERVAL '1 day' + place * INTERVAL '1 minute'
FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY n, place DESC;
