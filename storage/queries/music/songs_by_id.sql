-- songs_by_id: the columns of songs.sql for a list of ids, the parameter song_ids.  Ids without a song have no row.
--
-- Three more texts go into exported playlists, if they are there: artist_mbid, release_mbid, and location, the path or URL of the
-- song's own file.
-- A percent sign stands twice in this file (LIKE 'a%%'), because of the parameter.
SELECT
    song.song_id,
    song.artist_id,
    song.album_id,
    song.title,
    artist.name AS artist_name,
    album.title AS album_title,
    song.isrc,
    song.recording_mbid::text AS recording_mbid,
    artist.mbid::text AS artist_mbid,
    album.release_mbid::text AS release_mbid,
    song.location,
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
WHERE song.song_id = ANY(%(song_ids)s::text[]);
