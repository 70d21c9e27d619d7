-- new_releases: songs that came out within the last year.
SELECT song_id
FROM music.song
WHERE release_date >= current_date - INTERVAL '1 year';
