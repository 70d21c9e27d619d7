-- Features that are computed from the files that songs of the schema music lie in.  Features come as a whole, with whoever measured
-- them, and only to songs that have none: sources are never mixed in one song.

-- name: count_songs_without
-- How many songs lie in a file of their own, not at an address, and have no features of any source.
SELECT count(*)
FROM music.song
WHERE location IS NOT NULL AND location !~ '^[A-Za-z][A-Za-z0-9+.-]+://' AND 0 = num_nonnulls(
    danceability, energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo,
    time_signature, feature_source
);

-- name: songs_without
-- The next of those songs after one of them, in the order of their ids, so that one that stays without is not met again.
SELECT song_id, location
FROM music.song
WHERE (%(after)s::text IS NULL OR song_id > %(after)s)
    AND location IS NOT NULL AND location !~ '^[A-Za-z][A-Za-z0-9+.-]+://' AND 0 = num_nonnulls(
        danceability, energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo,
        time_signature, feature_source
    )
ORDER BY song_id
LIMIT %(at_most)s;

-- name: store
-- Gives a song its features, unless it got some meanwhile.
UPDATE music.song
SET tempo = %(tempo)s, key = %(key)s, mode = %(mode)s, loudness = %(loudness)s, energy = %(energy)s, feature_source = %(source)s
WHERE song_id = %(song_id)s AND 0 = num_nonnulls(
    danceability, energy, key, loudness, mode, speechiness, acousticness, instrumentalness, liveness, valence, tempo,
    time_signature, feature_source
);
