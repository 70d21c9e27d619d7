-- The queue of requests.  A claim is a lease with a number (the fence): only the holder of the latest number may end a request.
-- Times are statement_timestamp(), not now(): a worker's transaction may have begun long before.

-- name: add
-- Accepts a request, or finds the one that it joins or that the same idempotency key stands for; wakes the workers if none was
-- waiting.
SELECT recommender.request(%(playlist_id)s::text, %(options)s, %(idempotency_key)s, %(priority)s);

-- name: request_of_key
-- The request that an idempotency key stands for, if any.
SELECT recommender.request_of_key(%(idempotency_key)s, %(playlist_id)s, %(options)s);

-- name: claim
-- Takes requests for one worker: the highest priority first, among equals the longest-waiting one.  Who is asking for the same at
-- the moment has locked its row, so that it is passed over until that transaction's songs can be read.
WITH candidate AS (
    SELECT request_id
    FROM recommender.request
    WHERE state = 'queued' AND not_before <= statement_timestamp()
    ORDER BY priority DESC, not_before, request_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE recommender.request
    SET
        state = 'running',
        is_open = false,
        attempts = attempts + 1,
        lease_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s),
        fence = nextval('recommender.fence'),
        worker = %(worker)s
    FROM candidate
    WHERE request.request_id = candidate.request_id
    RETURNING request.request_id, playlist_id, options, attempts, fence, priority, not_before
)
SELECT request_id, playlist_id, options, attempts, fence FROM claimed ORDER BY priority DESC, not_before, request_id;

-- name: take_over
-- Takes requests whose lease has ended; those that took their workers down with them as often as is allowed are failed instead,
-- so that one poisonous request cannot go round for ever.  A last attempt is made alone, so that the poisonous one does not take
-- the others of its batch down with it.
WITH expired AS (
    SELECT request_id, lease_until, attempts, worker
    FROM recommender.request
    WHERE state = 'running' AND lease_until <= statement_timestamp()
    ORDER BY lease_until
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), oldest AS (
    SELECT request_id, attempts
    FROM expired
    WHERE attempts < %(max_attempts)s
    ORDER BY lease_until, request_id
    LIMIT 1
), candidate AS (
    SELECT expired.request_id, expired.lease_until
    FROM expired
    CROSS JOIN oldest
    WHERE expired.request_id = oldest.request_id
        OR (oldest.attempts < %(max_attempts)s - 1 AND expired.attempts < %(max_attempts)s - 1)
), buried AS (
    UPDATE recommender.request
    SET
        state = 'failed',
        lease_until = NULL,
        finished_at = statement_timestamp(),
        error = format('worker %%s did not come back from attempt %%s', expired.worker, expired.attempts)
    FROM expired
    WHERE request.request_id = expired.request_id AND expired.attempts >= %(max_attempts)s
), claimed AS (
    UPDATE recommender.request
    SET
        attempts = request.attempts + 1,
        lease_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s),
        fence = nextval('recommender.fence'),
        worker = %(worker)s
    FROM candidate
    WHERE request.request_id = candidate.request_id
    RETURNING
        request.request_id, request.playlist_id, request.options, request.attempts, request.fence,
        candidate.lease_until AS ended_at
)
SELECT request_id, playlist_id, options, attempts, fence FROM claimed ORDER BY ended_at, request_id;

-- name: give_up
-- Puts back what a worker held when it lost the database: it is not working on it any more.  The attempt counts.
UPDATE recommender.request
SET state = 'queued', lease_until = NULL
WHERE state = 'running' AND worker = %(worker)s AND attempts < %(max_attempts)s;

-- name: renew
-- Gives a worker more time, if the request is still its own.
UPDATE recommender.request
SET lease_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE request_id = %(request_id)s AND fence = %(fence)s AND state = 'running'
RETURNING request_id;

-- name: prefer_indexes
-- For this transaction.  The checks of foreign keys keep their plans for a session's life; those made while the tables were empty
-- read them from end to end: a new worker answered 548 instead of 2,495 requests a second.
SET LOCAL enable_seqscan = off;

-- name: finish
-- Ends requests together with their songs, where they are still this worker's own; says which ones were.
WITH answer AS (
    SELECT request_id, fence, model_id, facts
    FROM unnest(%(request_ids)s::bigint[], %(fences)s::bigint[], %(model_ids)s::text[], %(facts)s::text[]::jsonb[])
        AS answer (request_id, fence, model_id, facts)
), held AS (
    UPDATE recommender.request
    SET state = 'done', lease_until = NULL, finished_at = statement_timestamp(), error = NULL, facts = answer.facts
    FROM answer
    WHERE request.request_id = answer.request_id AND request.fence = answer.fence AND request.state = 'running'
    RETURNING request.request_id, request.playlist_id, answer.model_id
), written AS (
    INSERT INTO recommender.recommendation (request_id, playlist_id, rank, song_id, score, reasons, model_id)
    SELECT held.request_id, held.playlist_id, song.rank, song.song_id, song.score, song.reasons, held.model_id
    FROM held
    JOIN unnest(
        %(answered_ids)s::bigint[], %(ranks)s::integer[], %(song_ids)s::text[], %(scores)s::double precision[],
        %(reasons)s::text[]::jsonb[]
    ) AS song (request_id, rank, song_id, score, reasons) ON song.request_id = held.request_id
)
SELECT request_id FROM held;

-- name: fail
-- Puts a request back for later, twice as late after each attempt, or fails it for good; in both cases with the error.
UPDATE recommender.request
SET
    state = CASE WHEN %(is_final)s OR attempts >= %(max_attempts)s THEN 'failed' ELSE 'queued' END,
    finished_at = CASE WHEN %(is_final)s OR attempts >= %(max_attempts)s THEN statement_timestamp() END,
    not_before = statement_timestamp() + make_interval(secs => LEAST(%(backoff_seconds)s * 2 ^ (attempts - 1), 3600)),
    lease_until = NULL,
    error = %(error)s
WHERE request_id = %(request_id)s AND fence = %(fence)s AND state = 'running'
RETURNING state;

-- name: release
-- Gives a request back unworked, as if it had not been claimed: nothing is wrong with it.
UPDATE recommender.request
SET state = 'queued', attempts = attempts - 1, lease_until = NULL, worker = NULL
WHERE request_id = %(request_id)s AND fence = %(fence)s AND state = 'running'
RETURNING request_id;

-- name: state
-- Where one request stands.
SELECT request_id, playlist_id, options, state, attempts, not_before, error, created_at, finished_at, facts
FROM recommender.request
WHERE request_id = %(request_id)s;

-- name: recommendations
-- The songs of one request, the best first.
SELECT rank, song_id, score, reasons, model_id, created_at
FROM recommender.recommendation
WHERE request_id = %(request_id)s
ORDER BY rank;

-- name: latest_songs
-- The songs of the newest answers, read backwards through the primary key.
SELECT request_id, song_id
FROM recommender.recommendation
ORDER BY request_id DESC, rank
LIMIT %(limit)s;

-- name: depth
-- How much is open, and since when the oldest waits.
SELECT
    count(*) FILTER (WHERE state = 'queued') AS queued,
    count(*) FILTER (WHERE state = 'running') AS running,
    min(created_at) AS oldest
FROM recommender.request
WHERE state IN ('queued', 'running');

-- name: clear_finished
-- Removes requests that ended longer ago than recommender.setting keeps them, the oldest first, and their songs with them.
DELETE FROM recommender.request
WHERE request_id = ANY(ARRAY(
    SELECT request_id
    FROM recommender.request
    WHERE finished_at < statement_timestamp() - (SELECT retention FROM recommender.setting)
    ORDER BY finished_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
));

-- name: listen
-- Hears of requests that come while nothing waits.
LISTEN recommender;
