-- songs: one row per song.  Only song_id is required.
--
-- song_id, artist_id, album_id keep their type (integer, uuid or text) all the way in and out; do not cast them.
-- feature_source, a text, says who measured the features.  Every other numeric or boolean column is taken as a feature of the song;
-- NULL means that it is not known.
SELECT
    song.song_id,
    song.artist_id,
    song.album_id,
    song.title,
    artist.name AS artist_name,
    album.title AS album_title,
    song.isrc,
    song.recording_mbid::text AS recording_mbid,
    song.feature_source,
    song.explicit,
    song.mode,
    song.disc_number,
    song.track_number,
    song.danceability,
    song.energy,
    song.loudness,
    song.speechiness,
    song.acousticness,
    song.instrumentalness,
    song.liveness,
    song.valence,
    song.tempo,
    song.duration_ms,
    song.time_signature,
    song.key
FROM music.song
LEFT JOIN music.artist ON artist.artist_id = song.artist_id
LEFT JOIN music.album ON album.album_id = song.album_id
ORDER BY song.song_id;
