-- Asking in SQL: one open request per playlist, priorities, a cap, retention, waiting for an answer, and what became of it.
--
-- Ids of playlists and songs are text in these tables, whatever type they have in the user's own; the functions take every type,
-- and `recommender.create_latest` makes the view `recommender.latest` show them in the user's own types again.

CREATE TABLE recommender.setting (
    -- prevents a second row, after which nobody could say which one counts
    only_row boolean CONSTRAINT setting_pkey PRIMARY KEY DEFAULT true CONSTRAINT setting_only_row_check CHECK (only_row),
    -- requests that may wait at one time; whoever asks beyond that gets an error
    max_queued integer NOT NULL DEFAULT 100000 CONSTRAINT setting_max_queued_check CHECK (max_queued > 0),
    -- finished requests are removed, with their songs, when they are older
    retention interval NOT NULL DEFAULT '30 days' CONSTRAINT setting_retention_check CHECK (retention > '0 s'),
    -- whether asking wakes workers that listen; false spares the NOTIFY where all of them poll
    notify boolean NOT NULL DEFAULT true
);

COMMENT ON TABLE recommender.setting IS 'The rules of the queue, in one row.  Set by the owner: UPDATE recommender.setting SET max_queued = 10000.';

INSERT INTO recommender.setting DEFAULT VALUES;

-- Keys have a table of their own: several of them may stand for one request, once a later one has joined it.
CREATE TABLE recommender.idempotency (
    -- prevents that a request sent again is accepted twice
    idempotency_key text CONSTRAINT idempotency_pkey PRIMARY KEY,
    request_id bigint NOT NULL
        -- prevents keys that stand for nothing, and removes them with their request
        CONSTRAINT idempotency_request_id_fkey REFERENCES recommender.request (request_id) ON DELETE CASCADE,
    -- what was asked with the key, so that the same key with something else is noticed
    playlist_id text NOT NULL,
    options jsonb NOT NULL
);

-- serves removing requests, which looks for their keys
CREATE INDEX idempotency_request_id_idx ON recommender.idempotency (request_id);

INSERT INTO recommender.idempotency (idempotency_key, request_id, playlist_id, options)
SELECT idempotency_key, request_id, playlist_id, options
FROM recommender.request
WHERE idempotency_key IS NOT NULL;

DROP FUNCTION recommender.request(text, jsonb, text);

ALTER TABLE recommender.request
    DROP COLUMN idempotency_key,
    -- higher ones are claimed first
    ADD COLUMN priority integer NOT NULL DEFAULT 0,
    -- Who asks for the same with the same options joins an open request.  It closes with its first claim and stays closed: its
    -- songs may have been read by then, and an answer must not be older than the question.
    ADD COLUMN is_open boolean NOT NULL DEFAULT false,
    -- the transaction that asked last, so that waiting in it can be refused: nothing is answered before its commit
    ADD COLUMN asked_in xid8,
    -- prevents that somebody joins a request whose songs were read already
    ADD CONSTRAINT request_open_check CHECK (NOT is_open OR state = 'queued');

-- prevents two open requests for the same
CREATE UNIQUE INDEX request_open_key ON recommender.request (playlist_id, options) WHERE is_open;

DROP INDEX recommender.request_claimable_idx;
-- serves `claim` in its order
CREATE INDEX request_waiting_idx ON recommender.request (priority DESC, not_before, request_id) WHERE state = 'queued';
-- serves `take_over`: leases in the order in which they end
CREATE INDEX request_lease_until_idx ON recommender.request (lease_until) WHERE state = 'running';
-- serves the cap: the number of the longest-waiting request bounds how many wait
CREATE INDEX request_queued_idx ON recommender.request (request_id) WHERE state = 'queued';
-- serves recommender.status: failures are few among what is finished
CREATE INDEX request_failed_idx ON recommender.request (finished_at) WHERE state = 'failed';

-- `recommender.latest` finds a playlist's newest answer among the requests.
DROP INDEX recommender.recommendation_playlist_id_idx;

-- --- asking ------------------------------------------------------------------------------------------------------------------

-- What asking has to know of the queue: the rules, whether nothing waits that a worker may take, the longest-waiting number.
CREATE VIEW recommender.head AS
SELECT
    setting.max_queued,
    setting.notify,
    (
        SELECT request_id
        FROM recommender.request
        WHERE state = 'queued' AND not_before <= statement_timestamp()
        ORDER BY priority DESC, not_before, request_id
        LIMIT 1
    ) IS NULL AS is_idle,
    (SELECT request_id FROM recommender.request WHERE state = 'queued' ORDER BY request_id LIMIT 1) AS oldest
FROM recommender.setting;

CREATE FUNCTION recommender.wake()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Commits with a NOTIFY queue up behind one another, each with its own flush to disk.  So it is sent only when nothing was
    -- waiting, and of those who find the queue empty at the same time by one: without the lock, 64 clients in front of a queue
    -- that is always emptied asked 1,073 instead of 3,855 times a second.  What is committed just after the one NOTIFY is found
    -- by the workers' next look, which is soon after their last work.
    IF pg_try_advisory_xact_lock(hashtextextended('recommender wake', 0)) THEN
        PERFORM pg_notify('recommender', '');
    END IF;
END
$$;

COMMENT ON FUNCTION recommender.wake() IS 'Tells idle workers of a request when this transaction commits, unless another one is about to.';

CREATE FUNCTION recommender.may_be_joined(options jsonb)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
-- An index holds rows of about 2,700 bytes; longer options (thousands of excluded songs) stand alone.
AS $$ SELECT octet_length(options::text) <= 500 $$;

CREATE FUNCTION recommender.require_room(most bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM recommender.request WHERE state = 'queued' LIMIT most + 1) AS waiting) > most THEN
        RAISE configuration_limit_exceeded USING
            MESSAGE = format('the queue is full: %s requests are waiting, which is max_queued', most),
            HINT = 'Ask again later, start another worker, or raise max_queued in recommender.setting.';
    END IF;
END
$$;

COMMENT ON FUNCTION recommender.require_room(bigint) IS 'Raises configuration_limit_exceeded when more wait than may.';

CREATE FUNCTION recommender.join_or_add(playlist_id text, options jsonb, priority integer)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Joining waits for a transaction that asked for the same and is not over.  Well below deadlock_timeout (1 s), so that it is never
-- somebody else's statement that PostgreSQL ends in order to resolve a deadlock.  Set for this one statement: whatever else asking
-- waits for, it waits as long as the caller's own lock_timeout says.
SET lock_timeout = '50ms'
AS $$
#variable_conflict use_column
DECLARE
    accepted bigint;
BEGIN
    INSERT INTO recommender.request AS request (playlist_id, options, priority, is_open, asked_in)
    VALUES (
        join_or_add.playlist_id, join_or_add.options, join_or_add.priority,
        recommender.may_be_joined(join_or_add.options), pg_current_xact_id()
    )
    -- Joining locks the row: a worker must not claim it before this transaction's songs can be read.
    ON CONFLICT (playlist_id, options) WHERE is_open
    DO UPDATE SET priority = GREATEST(request.priority, EXCLUDED.priority), asked_in = EXCLUDED.asked_in
    RETURNING request.request_id INTO accepted;
    RETURN accepted;
END
$$;

COMMENT ON FUNCTION recommender.join_or_add(text, jsonb, integer) IS
    'Joins the open request of a playlist or makes one.  Raises lock_not_available where somebody else''s transaction holds it.';

CREATE FUNCTION recommender.add_apart(playlist_id text, options jsonb, priority integer)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO recommender.request (playlist_id, options, priority, asked_in)
    VALUES (add_apart.playlist_id, add_apart.options, add_apart.priority, pg_current_xact_id())
    RETURNING request_id
$$;

COMMENT ON FUNCTION recommender.add_apart(text, jsonb, integer) IS 'Makes a request that nobody joins, beside an open one.';

CREATE FUNCTION recommender.accept(playlist_id text, options jsonb, priority integer)
RETURNS bigint
LANGUAGE plpgsql
-- Whoever may call this needs no right to the tables.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A session keeps the plans that it made while the queue was empty, and reading an empty table from end to end is cheapest.
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    before recommender.head;
    accepted bigint;
BEGIN
    -- Whoever holds the whole table (create_latest while it makes its index) is waited for here, and not taken for a conflict.
    LOCK TABLE recommender.request IN ROW EXCLUSIVE MODE;
    SELECT max_queued, notify, is_idle, oldest INTO before FROM recommender.head;
    BEGIN
        accepted := recommender.join_or_add(accept.playlist_id, accept.options, accept.priority);
    EXCEPTION
        WHEN lock_not_available OR serialization_failure THEN
            accepted := recommender.add_apart(accept.playlist_id, accept.options, accept.priority);
    END;
    -- Numbers are given out in order, so no more can wait than there are between the oldest and the newest.  Counting is only
    -- needed when that says too many, for example because one old request waits for its next attempt.
    IF accepted - before.oldest >= before.max_queued THEN
        PERFORM recommender.require_room(before.max_queued);
    END IF;
    IF before.is_idle AND before.notify THEN
        PERFORM recommender.wake();
    END IF;
    RETURN accepted;
END
$$;

COMMENT ON FUNCTION recommender.accept(text, jsonb, integer) IS
    'The way into the queue for one playlist: joins its open request or makes one, and never waits long for who asks for the same.';

CREATE FUNCTION recommender.join_or_add_many(playlist_ids text[], options jsonb, priority integer)
RETURNS TABLE (playlist_id text, request_id bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms' -- as above
AS $$
    INSERT INTO recommender.request AS request (playlist_id, options, priority, is_open, asked_in)
    SELECT
        DISTINCT wanted_id, join_or_add_many.options, join_or_add_many.priority,
        recommender.may_be_joined(join_or_add_many.options), pg_current_xact_id()
    FROM unnest(join_or_add_many.playlist_ids) AS wanted_id
    ORDER BY wanted_id
    ON CONFLICT (playlist_id, options) WHERE is_open
    DO UPDATE SET priority = GREATEST(request.priority, EXCLUDED.priority), asked_in = EXCLUDED.asked_in
    RETURNING request.playlist_id, request.request_id
$$;

COMMENT ON FUNCTION recommender.join_or_add_many(text[], jsonb, integer) IS
    'The same for several playlists in one statement, five times as fast for each: all, or lock_not_available.';

CREATE FUNCTION recommender.accept_each(playlist_ids text[], options jsonb, priority integer)
RETURNS TABLE (playlist_id text, request_id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- Each conflict costs the 50 ms of join_or_add, so only this many are looked for; what comes after them stands apart as well.
    most_conflicts CONSTANT integer := 10;
    wanted text[] := ARRAY(SELECT DISTINCT wanted_id FROM unnest(playlist_ids) AS wanted_id ORDER BY wanted_id);
    accepted bigint[];
    conflicts integer := 0;
    -- A run of ids goes from `first` to the one before `apart`, which conflicts; the last run has none and ends with the ids.
    first integer := 1;
    apart integer := cardinality(wanted) + 1;
    place integer;
BEGIN
    WHILE first <= cardinality(wanted) LOOP
        -- One subtransaction for a run, not for each id: more than 64 of them slow down everybody's snapshots.
        BEGIN
            place := first;
            WHILE place < apart LOOP
                accepted[place] := recommender.join_or_add(wanted[place], accept_each.options, accept_each.priority);
                place := place + 1;
            END LOOP;
        EXCEPTION
            WHEN lock_not_available OR serialization_failure THEN
                -- The run is undone with it: it is asked for again, up to here.
                apart := place;
                conflicts := conflicts + 1;
                CONTINUE;
        END;
        IF apart <= cardinality(wanted) THEN
            accepted[apart] := recommender.add_apart(wanted[apart], accept_each.options, accept_each.priority);
        END IF;
        first := apart + 1;
        apart := CASE WHEN conflicts < most_conflicts THEN cardinality(wanted) + 1 ELSE first END;
    END LOOP;
    RETURN QUERY SELECT pair.playlist_id, pair.request_id FROM unnest(wanted, accepted) AS pair (playlist_id, request_id);
END
$$;

COMMENT ON FUNCTION recommender.accept_each(text[], jsonb, integer) IS
    'The same one by one, so that only those stand apart for which somebody else''s transaction asks.';

CREATE FUNCTION recommender.accept_many(playlist_ids text[], options jsonb, priority integer)
RETURNS TABLE (playlist_id text, request_id bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off -- as above
AS $$
#variable_conflict use_column
DECLARE
    before recommender.head;
    asked text[];
    accepted bigint[];
BEGIN
    LOCK TABLE recommender.request IN ROW EXCLUSIVE MODE; -- as above
    SELECT max_queued, notify, is_idle, oldest INTO before FROM recommender.head;
    BEGIN
        SELECT array_agg(taken.playlist_id), array_agg(taken.request_id)
        INTO asked, accepted
        FROM recommender.join_or_add_many(accept_many.playlist_ids, accept_many.options, accept_many.priority) AS taken;
    EXCEPTION
        WHEN lock_not_available OR serialization_failure THEN
            SELECT array_agg(taken.playlist_id), array_agg(taken.request_id)
            INTO asked, accepted
            FROM recommender.accept_each(accept_many.playlist_ids, accept_many.options, accept_many.priority) AS taken;
    END;
    PERFORM recommender.require_room(before.max_queued);
    IF before.is_idle AND before.notify AND accepted IS NOT NULL THEN
        PERFORM recommender.wake();
    END IF;
    RETURN QUERY SELECT pair.playlist_id, pair.request_id FROM unnest(asked, accepted) AS pair (playlist_id, request_id);
END
$$;

COMMENT ON FUNCTION recommender.accept_many(text[], jsonb, integer) IS 'The way into the queue for several playlists.';

CREATE FUNCTION recommender.request_of_key(idempotency_key text, playlist_id text, options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off -- as above
AS $$
#variable_conflict use_column
DECLARE
    earlier recommender.idempotency;
BEGIN
    -- Two callers with one key at once: the second waits for the first one's end.
    PERFORM pg_advisory_xact_lock(hashtextextended('recommender idempotency ' || request_of_key.idempotency_key, 0));
    SELECT sent.idempotency_key, sent.request_id, sent.playlist_id, sent.options
    INTO earlier
    FROM recommender.idempotency AS sent
    WHERE sent.idempotency_key = request_of_key.idempotency_key;
    IF earlier.playlist_id <> request_of_key.playlist_id OR earlier.options <> request_of_key.options THEN
        RAISE unique_violation USING
            CONSTRAINT = 'idempotency_pkey',
            MESSAGE = format(
                'idempotency key %L was used for playlist %L with options %s before',
                request_of_key.idempotency_key, earlier.playlist_id, left(earlier.options::text, 200)
            );
    END IF;
    RETURN earlier.request_id;
END
$$;

COMMENT ON FUNCTION recommender.request_of_key(text, text, jsonb) IS
    'The number of the request that a key stands for; NULL for a new key, which is then this transaction''s own until its end.';

CREATE FUNCTION recommender.request(
    playlist_id text, options jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL, priority integer DEFAULT 0
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off -- as above
AS $$
#variable_conflict use_column
DECLARE
    accepted bigint;
BEGIN
    IF request.idempotency_key IS NULL THEN
        RETURN recommender.accept(request.playlist_id, request.options, request.priority);
    END IF;
    accepted := recommender.request_of_key(request.idempotency_key, request.playlist_id, request.options);
    IF accepted IS NOT NULL THEN
        RETURN accepted;
    END IF;
    accepted := recommender.accept(request.playlist_id, request.options, request.priority);
    INSERT INTO recommender.idempotency (idempotency_key, request_id, playlist_id, options)
    VALUES (request.idempotency_key, accepted, request.playlist_id, request.options)
    -- Only met where the snapshot is older than the key (REPEATABLE READ): then this is a serialization_failure, which says try
    -- again, and not the unique_violation of a key that was used for something else.
    ON CONFLICT ON CONSTRAINT idempotency_pkey DO NOTHING;
    RETURN accepted;
END
$$;

COMMENT ON FUNCTION recommender.request(text, jsonb, text, integer) IS
    'Asks for songs that continue a playlist; returns the number under which recommender.recommendation gets them.';

-- Without STRICT and without SET, so that it is inlined.
CREATE FUNCTION recommender.request(
    playlist_id anyelement, options jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL, priority integer DEFAULT 0
)
RETURNS bigint
LANGUAGE sql
AS $$ SELECT recommender.request(playlist_id::text, options, idempotency_key, priority) $$;

COMMENT ON FUNCTION recommender.request(anyelement, jsonb, text, integer) IS 'The same for ids that are numbers or uuids.';

CREATE FUNCTION recommender.request_many(playlist_ids anyarray, options jsonb DEFAULT '{}', priority integer DEFAULT 0)
RETURNS SETOF bigint
LANGUAGE sql
-- With the caller's rights: a cast to text may be somebody's own function, which must not run with the owner's.
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT accepted.request_id
    FROM unnest(playlist_ids::text[]) WITH ORDINALITY AS wanted (playlist_id, place)
    JOIN recommender.accept_many(playlist_ids::text[], options, priority) AS accepted ON accepted.playlist_id = wanted.playlist_id
    ORDER BY wanted.place
$$;

COMMENT ON FUNCTION recommender.request_many(anyarray, jsonb, integer) IS
    'Asks for several playlists in one statement, all or none; returns a number for each, in their order.';

CREATE FUNCTION recommender.ask_for_added()
RETURNS trigger
LANGUAGE plpgsql
-- Whoever adds songs needs no right to the queue.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    playlist_ids text[];
BEGIN
    -- concat() and not a cast to text, which may be the table owner's own function and would run with more rights than theirs.
    -- It leaves the blanks that fill up a char(n); a cast, as in recommender.request, does not.
    EXECUTE format(
        $query$
        SELECT array_agg(DISTINCT CASE pg_typeof(added.%1$I) WHEN 'bpchar'::regtype THEN rtrim(written) ELSE written END)
        FROM added
        CROSS JOIN LATERAL concat(added.%1$I) AS written
        WHERE added.%1$I IS NOT NULL
        $query$,
        TG_ARGV[0]
    )
    INTO playlist_ids;
    IF playlist_ids IS NOT NULL THEN
        PERFORM recommender.request_many(playlist_ids, COALESCE(TG_ARGV[1], '{}')::jsonb);
    END IF;
    RETURN NULL;
EXCEPTION
    -- The songs come first: whatever keeps the queue from taking a request, a full queue above all, must not undo their insert.
    WHEN OTHERS THEN
        RAISE WARNING USING
            MESSAGE = format('songs were added to %I, but no recommendations were asked for: %s', TG_TABLE_NAME, SQLERRM),
            ERRCODE = SQLSTATE,
            HINT = 'Ask again with recommender.request(playlist_id).';
        RETURN NULL;
END
$$;

COMMENT ON FUNCTION recommender.ask_for_added() IS
    'When songs are added to playlists, ask, once per statement and playlist: CREATE TRIGGER ask AFTER INSERT ON playlist_song '
    'REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION recommender.ask_for_added(''playlist_id'').  The first '
    'argument names the column of the playlist''s id, an optional second one holds options.';

-- --- what became of it -------------------------------------------------------------------------------------------------------

CREATE FUNCTION recommender.wait(request_id bigint, timeout interval DEFAULT '30 s')
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off -- as above
AS $$
DECLARE
    deadline CONSTANT timestamptz := clock_timestamp() + wait.timeout;
    pause_seconds double precision := 0.005;
    found recommender.request;
BEGIN
    -- Each statement in this loop sees what others have committed by then, but only in this isolation level.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE invalid_transaction_state USING
            MESSAGE = format('recommender.wait() would see nothing change in a %s transaction', current_setting('transaction_isolation')),
            HINT = 'Wait in a READ COMMITTED transaction of its own.';
    END IF;
    LOOP
        SELECT asked.state, asked.asked_in INTO found.state, found.asked_in
        FROM recommender.request AS asked
        WHERE asked.request_id = wait.request_id;
        IF found.state IS NULL THEN
            RAISE no_data_found USING
                MESSAGE = format('no request %s: it was never accepted, or is cleared away', wait.request_id);
        ELSIF found.asked_in = pg_current_xact_id_if_assigned() THEN
            RAISE invalid_transaction_state USING
                MESSAGE = format('request %s was made in this transaction, and is answered only after its commit', wait.request_id),
                HINT = 'COMMIT first, then wait.';
        END IF;
        EXIT WHEN found.state IN ('done', 'failed') OR clock_timestamp() >= deadline;
        PERFORM pg_sleep(LEAST(pause_seconds, EXTRACT(EPOCH FROM deadline - clock_timestamp())));
        pause_seconds := LEAST(1.5 * pause_seconds, 0.25);
    END LOOP;
    RETURN found.state;
END
$$;

COMMENT ON FUNCTION recommender.wait(bigint, interval) IS
    'Stays until a request is done or failed, or the time is over, and returns its state.  In a READ COMMITTED transaction, and '
    'not in the one that made the request.';

CREATE FUNCTION recommender.create_latest(song_id_type regtype DEFAULT 'text', playlist_id_type regtype DEFAULT 'text')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader text;
    -- who may read the view that is replaced; PUBLIC has no role
    readers CONSTANT text[] := ARRAY(
        SELECT CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END
        FROM pg_class AS view
        CROSS JOIN aclexplode(view.relacl) AS granted
        WHERE view.oid = to_regclass('recommender.latest')
            AND granted.privilege_type = 'SELECT'
            AND granted.grantee <> view.relowner
    );
BEGIN
    DROP VIEW IF EXISTS recommender.latest;
    DROP INDEX IF EXISTS recommender.request_latest_idx;
    -- serves the view, in the type in which it is asked
    EXECUTE format(
        'CREATE INDEX request_latest_idx ON recommender.request ((playlist_id::%s), finished_at DESC, request_id DESC) '
        'WHERE state = ''done''',
        playlist_id_type
    );
    EXECUTE format(
        $view$
        CREATE VIEW recommender.latest AS
        SELECT
            newest.playlist_id,
            recommendation.rank,
            recommendation.song_id::%1$s AS song_id,
            recommendation.score,
            recommendation.model_id,
            recommendation.reasons,
            newest.request_id,
            newest.finished_at
        FROM (
            SELECT DISTINCT ON (request.playlist_id::%2$s)
                request.playlist_id::%2$s AS playlist_id, request.request_id, request.finished_at
            FROM recommender.request
            WHERE request.state = 'done'
            ORDER BY request.playlist_id::%2$s, request.finished_at DESC, request.request_id DESC
        ) AS newest
        JOIN recommender.recommendation ON recommendation.request_id = newest.request_id
        $view$,
        song_id_type, playlist_id_type
    );
    COMMENT ON VIEW recommender.latest IS 'The newest finished list of each playlist, one row per song; rank 1 is the best.';
    FOREACH reader IN ARRAY readers LOOP
        EXECUTE format('GRANT SELECT ON recommender.latest TO %s', reader);
    END LOOP;
END
$$;

COMMENT ON FUNCTION recommender.create_latest(regtype, regtype) IS
    'Makes the view recommender.latest with song and playlist ids in these types; run by the owner.  Readers keep their right.';

SELECT recommender.create_latest();

CREATE VIEW recommender.status AS
SELECT
    (SELECT count(*) FROM recommender.request WHERE state = 'queued') AS queued,
    (SELECT count(*) FROM recommender.request WHERE state = 'running') AS running,
    (
        SELECT EXTRACT(EPOCH FROM clock_timestamp() - created_at)::double precision
        FROM recommender.request
        WHERE state = 'queued'
        ORDER BY request_id
        LIMIT 1
    ) AS oldest_waiting_seconds,
    failure.failed_last_day,
    failure.errors,
    model.model_id,
    model.model_age_seconds
FROM (
    SELECT COALESCE(sum(alike.requests), 0)::bigint AS failed_last_day,
        COALESCE(
            jsonb_agg(
                jsonb_build_object(
                    'error', alike.error, 'requests', alike.requests,
                    'latest_request_id', alike.request_id, 'latest_at', alike.finished_at
                )
                ORDER BY alike.finished_at DESC
            ),
            '[]'
        ) AS errors
    FROM (
        SELECT error, count(*) AS requests, max(request_id) AS request_id, max(finished_at) AS finished_at
        FROM recommender.request
        WHERE state = 'failed' AND finished_at > clock_timestamp() - INTERVAL '1 day'
        GROUP BY error
    ) AS alike
) AS failure
LEFT JOIN (
    SELECT
        model_id,
        EXTRACT(EPOCH FROM clock_timestamp() - COALESCE(trained_at, registered_at))::double precision AS model_age_seconds
    FROM recommender.model
    ORDER BY published_at DESC NULLS LAST, registered_at DESC
    LIMIT 1
) AS model ON true;

COMMENT ON VIEW recommender.status IS
    'One row: what waits and for how long, what failed within a day and why, and the model that was published (else registered) last.';

-- Functions may be executed by everybody unless that is taken away.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender FROM PUBLIC;
