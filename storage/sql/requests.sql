-- The queue of requests.  A claim is a lease with a number (the fence): only the holder of the latest number may end a request.
-- Times are statement_timestamp(), not now(): a worker's transaction may have begun long before.

-- name: add
-- Accepts a request, or finds the one that the same idempotency key stands for; wakes the workers if none was waiting.
SELECT recommender.request(%(playlist_id)s, %(options)s, %(idempotency_key)s);

-- name: claim
-- Takes requests for one worker, the longest-waiting first, expired leases among them; those that took their workers down with
-- them as often as is allowed are failed instead, so that one poisonous request cannot go round for ever.
WITH candidate AS (
    SELECT request_id, COALESCE(lease_until, not_before) AS claimable_at, attempts, worker
    FROM recommender.request
    WHERE state IN ('queued', 'running') AND COALESCE(lease_until, not_before) <= statement_timestamp()
    ORDER BY COALESCE(lease_until, not_before), request_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), buried AS (
    UPDATE recommender.request
    SET
        state = 'failed',
        lease_until = NULL,
        finished_at = statement_timestamp(),
        error = format('worker %%s did not come back from attempt %%s', candidate.worker, candidate.attempts)
    FROM candidate
    WHERE request.request_id = candidate.request_id AND candidate.attempts >= %(max_attempts)s
), claimed AS (
    UPDATE recommender.request
    SET
        state = 'running',
        attempts = request.attempts + 1,
        lease_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s),
        fence = nextval('recommender.fence'),
        worker = %(worker)s
    FROM candidate
    WHERE request.request_id = candidate.request_id AND candidate.attempts < %(max_attempts)s
    RETURNING request.request_id, request.playlist_id, request.options, request.attempts, request.fence, candidate.claimable_at
)
SELECT request_id, playlist_id, options, attempts, fence FROM claimed ORDER BY claimable_at, request_id;

-- name: renew
-- Gives a worker more time, if the request is still its own.
UPDATE recommender.request
SET lease_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE request_id = %(request_id)s AND fence = %(fence)s AND state = 'running'
RETURNING request_id;

-- name: finish
-- Ends a request together with its songs, if it is still this worker's own; says whether it was.
WITH held AS (
    UPDATE recommender.request
    SET state = 'done', lease_until = NULL, finished_at = statement_timestamp(), error = NULL
    WHERE request_id = %(request_id)s AND fence = %(fence)s AND state = 'running'
    RETURNING request_id, playlist_id
), written AS (
    INSERT INTO recommender.recommendation (request_id, playlist_id, rank, song_id, score, reasons, model_id)
    SELECT held.request_id, held.playlist_id, song.rank, song.song_id, song.score, song.reasons, %(model_id)s
    FROM held
    CROSS JOIN unnest(%(song_ids)s::text[], %(scores)s::double precision[], %(reasons)s::jsonb[])
        WITH ORDINALITY AS song (song_id, score, reasons, rank)
)
SELECT EXISTS (SELECT FROM held);

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
SELECT request_id, playlist_id, options, state, attempts, not_before, error, created_at, finished_at
FROM recommender.request
WHERE request_id = %(request_id)s;

-- name: recommendations
-- The songs of one request, the best first.
SELECT rank, song_id, score, reasons, model_id, created_at
FROM recommender.recommendation
WHERE request_id = %(request_id)s
ORDER BY rank;

-- name: depth
-- How much is open, and since when the oldest waits.
SELECT
    count(*) FILTER (WHERE state = 'queued') AS queued,
    count(*) FILTER (WHERE state = 'running') AS running,
    min(created_at) AS oldest
FROM recommender.request
WHERE state IN ('queued', 'running');

-- name: clear_finished
-- Removes requests that ended long ago, and their songs with them.
DELETE FROM recommender.request
WHERE finished_at < statement_timestamp() - make_interval(secs => %(older_than_seconds)s);

-- name: listen
-- Hears of requests that come while nothing waits.
LISTEN recommender;
