-- A music server: text keys, a reserved word for the user, and times as seconds since 1970.
CREATE TABLE media_file (id text PRIMARY KEY, title text, artist text, album text, duration double precision, bpm integer, rating_average numeric);
CREATE TABLE scrobbles (media_file_id text NOT NULL REFERENCES media_file, "user" text NOT NULL, submission_time integer NOT NULL);
CREATE INDEX ON scrobbles ("user", submission_time);

INSERT INTO media_file
SELECT md5('file' || n), 'Song ' || n, 'Artist ' || n % 4, 'Album ' || n % 6, 180.5 + n, 80 + n FROM generate_series(1, 24) AS n;
INSERT INTO scrobbles
SELECT md5('file' || 12 * (n % 2) + (7 * n + place) % 12 + 1), 'user ' || n, 1767225600 + n * 86400 + place * 240
FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY md5(n::text || place::text);
