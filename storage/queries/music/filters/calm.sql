-- calm: quiet and slow songs, by what was measured; what was not measured is none of them.
SELECT song_id
FROM music.song
WHERE energy <= 0.4 AND tempo <= 110;
