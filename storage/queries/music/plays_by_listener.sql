-- plays_by_listener: what a listener played since a time; the parameters listener (a text) and since (with its zone).
--
-- Optional: without this file plays are known from feedback alone.  Required are song_id and listened_at; where
-- there is a column skipped as well, what is true there was not played but skipped.  Compare the parameter
-- with the key in the key's own type.  A percent sign stands twice in this file (LIKE 'a%%'), because of the parameters.
SELECT song_id, listened_at, skipped
FROM music.listen
WHERE user_id = %(listener)s::text AND listened_at >= %(since)s::timestamptz;
