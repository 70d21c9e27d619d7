-- A service to run for years: what listeners did, which model answers, what it answered, and the keys of callers.
--
-- Ids of listeners, songs and artists are text in these tables, whatever type they have in the user's own; the functions take
-- every type.

-- --- what listeners did --------------------------------------------------------------------------------------------------------

CREATE TABLE recommender.feedback (
    feedback_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    listener text NOT NULL,
    event text NOT NULL,
    -- what it is about: a song, or for never_again an artist instead
    song_id text,
    artist_id text,
    -- when it happened, by the listener's clock; one that runs ahead is set to the time of the report
    happened_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    -- The answer that held the song.  No reference: feedback is kept, requests are cleared away.
    request_id bigint,
    -- the model of that answer, whose figures count it
    model_id text
        -- prevents figures of models that were never known
        CONSTRAINT feedback_model_id_fkey REFERENCES recommender.model (model_id),
    -- whether the song was there because we proposed it
    is_recommended boolean NOT NULL DEFAULT false,
    ms_played integer,
    -- prevents events that nobody reads
    CONSTRAINT feedback_event_check CHECK (event IN ('played', 'skipped', 'liked', 'never_again')),
    -- prevents feedback about nothing, or about two things
    CONSTRAINT feedback_about_check CHECK (num_nonnulls(song_id, artist_id) = 1),
    -- prevents that an artist is played or liked: only their songs are
    CONSTRAINT feedback_artist_check CHECK (artist_id IS NULL OR event = 'never_again'),
    -- prevents listeners without a name, and ids that no index holds (its rows have about 2,700 bytes)
    CONSTRAINT feedback_length_check CHECK (
        octet_length(listener) BETWEEN 1 AND 1020 AND octet_length(COALESCE(song_id, artist_id)) BETWEEN 1 AND 1000
    ),
    -- prevents plays that end before they begin
    CONSTRAINT feedback_ms_played_check CHECK (ms_played >= 0),
    -- prevents that a model is credited with what it did not recommend
    CONSTRAINT feedback_model_check CHECK (model_id IS NULL OR is_recommended)
);

-- prevents that a report that is sent again counts twice; serves one listener's feedback, the newest first
CREATE UNIQUE INDEX feedback_listener_key ON recommender.feedback
    (listener, happened_at DESC, event, (COALESCE(song_id, artist_id)), (song_id IS NULL));
-- serves a listener's blocks, which have no end and would be looked for among all plays
CREATE INDEX feedback_never_again_idx ON recommender.feedback (listener) WHERE event = 'never_again';
-- serves the figures of models, from the index alone, and deleting a model, which looks for its feedback
CREATE INDEX feedback_model_id_idx ON recommender.feedback (model_id, happened_at) INCLUDE (event) WHERE model_id IS NOT NULL;

COMMENT ON TABLE recommender.feedback IS
    'What listeners did with songs.  It is kept; recommender.forget(listener) removes what belongs to one of them.';

CREATE VIEW recommender.play AS
SELECT listener, song_id, happened_at AS listened_at, ms_played, event = 'skipped' AS skipped, is_recommended
FROM recommender.feedback
WHERE event IN ('played', 'skipped');

COMMENT ON VIEW recommender.play IS 'The plays among the feedback as a play log, which sequences.sql may take in.';

CREATE FUNCTION recommender.feedback(
    listener text,
    song_id text,
    event text,
    happened_at timestamptz DEFAULT NULL,
    ms_played integer DEFAULT NULL,
    request_id bigint DEFAULT NULL,
    model_id text DEFAULT NULL,
    is_recommended boolean DEFAULT false,
    artist_id text DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql
-- Whoever may call this needs no right to the tables.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A session keeps the plans that it made while the tables were empty, and reading an empty table from end to end is cheapest.
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    was_answered boolean;
    answered_by text;
    added bigint;
BEGIN
    -- The number of a request is enough to know whose song it was.
    SELECT true, answer.model_id INTO was_answered, answered_by
    FROM recommender.recommendation AS answer
    WHERE answer.request_id = feedback.request_id AND answer.song_id = feedback.song_id;
    INSERT INTO recommender.feedback AS report (
        listener, event, song_id, artist_id, happened_at, request_id, model_id, is_recommended, ms_played
    )
    VALUES (
        feedback.listener, feedback.event, feedback.song_id, feedback.artist_id,
        LEAST(feedback.happened_at, statement_timestamp()),
        feedback.request_id, COALESCE(answered_by, feedback.model_id),
        feedback.is_recommended OR feedback.model_id IS NOT NULL OR was_answered IS NOT NULL, feedback.ms_played
    )
    ON CONFLICT (listener, happened_at, event, (COALESCE(song_id, artist_id)), (song_id IS NULL)) DO NOTHING
    RETURNING report.feedback_id INTO added;
    RETURN added;
END
$$;

COMMENT ON FUNCTION recommender.feedback(text, text, text, timestamptz, integer, bigint, text, boolean, text) IS
    'Tells what a listener did with a song: played, skipped, liked, never_again (with artist_id instead of the song: all of an '
    'artist''s songs).  Returns its number, NULL for what was told before.';

-- Without STRICT and without SET, so that they are inlined: a cast to text may be somebody's own function, and must run with the
-- caller's rights.  There are two of them because a literal has no type of its own, and is to be taken for a text.
CREATE FUNCTION recommender.feedback(
    listener anycompatible,
    song_id anyelement,
    event text,
    happened_at timestamptz DEFAULT NULL,
    ms_played integer DEFAULT NULL,
    request_id bigint DEFAULT NULL,
    model_id text DEFAULT NULL,
    is_recommended boolean DEFAULT false,
    artist_id text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT recommender.feedback(
        listener::text, song_id::text, event, happened_at, ms_played, request_id, model_id, is_recommended, artist_id
    )
$$;

CREATE FUNCTION recommender.feedback(
    listener anyelement,
    song_id text,
    event text,
    happened_at timestamptz DEFAULT NULL,
    ms_played integer DEFAULT NULL,
    request_id bigint DEFAULT NULL,
    model_id text DEFAULT NULL,
    is_recommended boolean DEFAULT false,
    artist_id text DEFAULT NULL
)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT recommender.feedback(
        listener::text, song_id, event, happened_at, ms_played, request_id, model_id, is_recommended, artist_id
    )
$$;

COMMENT ON FUNCTION recommender.feedback(anycompatible, anyelement, text, timestamptz, integer, bigint, text, boolean, text) IS
    'The same for ids that are numbers or uuids.';
COMMENT ON FUNCTION recommender.feedback(anyelement, text, text, timestamptz, integer, bigint, text, boolean, text) IS
    'The same for listeners whose ids are numbers or uuids.';

CREATE FUNCTION recommender.forget(listener text)
RETURNS bigint
LANGUAGE plpgsql
-- With the caller's rights: only the owner may delete feedback.
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reports bigint;
    requests bigint;
BEGIN
    DELETE FROM recommender.feedback AS report WHERE report.listener = forget.listener;
    GET DIAGNOSTICS reports = ROW_COUNT;
    -- Reads all requests; those of one listener are few, and asked for once.
    DELETE FROM recommender.request AS asked WHERE asked.options ->> 'listener' = forget.listener;
    GET DIAGNOSTICS requests = ROW_COUNT;
    RETURN reports + requests;
END
$$;

COMMENT ON FUNCTION recommender.forget(text) IS
    'Removes all that is known of a listener: feedback, and requests that name them, with their songs.  Returns how many of both '
    'together.  Run by the owner.';

CREATE FUNCTION recommender.forget(listener anyelement)
RETURNS bigint
LANGUAGE sql
AS $$ SELECT recommender.forget(listener::text) $$;

COMMENT ON FUNCTION recommender.forget(anyelement) IS 'The same for listeners whose ids are numbers or uuids.';

-- --- which model answers -------------------------------------------------------------------------------------------------------

-- NULL: nothing is wrong with it; else why it must not answer
ALTER TABLE recommender.model ADD COLUMN refused text CONSTRAINT model_refused_check CHECK (refused <> '');

CREATE TABLE recommender.deployment (
    -- the highest one counts
    deployment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id text NOT NULL
        -- prevents that something answers which nobody can trace
        CONSTRAINT deployment_model_id_fkey REFERENCES recommender.model (model_id),
    -- a second model, which answers for a share of the sequences
    challenger_id text
        CONSTRAINT deployment_challenger_id_fkey REFERENCES recommender.model (model_id), -- as above
    challenger_share double precision NOT NULL DEFAULT 0,
    -- What roll_back goes to, NULL where there is nothing: the one before, and where this one restores an earlier one, what was
    -- before that.  So rolling back twice goes two back.
    previous_id bigint
        -- prevents a way back that leads nowhere
        CONSTRAINT deployment_previous_id_fkey REFERENCES recommender.deployment (deployment_id),
    deployed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- prevents a share of nobody, and a challenger that is never asked or always
    CONSTRAINT deployment_share_check CHECK (
        CASE WHEN challenger_id IS NULL THEN challenger_share = 0 ELSE challenger_share > 0 AND challenger_share < 1 END
    ),
    -- prevents a comparison of a model with itself
    CONSTRAINT deployment_challenger_check CHECK (challenger_id <> model_id),
    -- prevents circles
    CONSTRAINT deployment_previous_check CHECK (previous_id < deployment_id)
);

COMMENT ON TABLE recommender.deployment IS 'Which model answers since when.  The newest row counts, and services look for it.';

-- serves deleting a model, which looks for its deployments
CREATE INDEX deployment_model_id_idx ON recommender.deployment (model_id);
CREATE INDEX deployment_challenger_id_idx ON recommender.deployment (challenger_id) WHERE challenger_id IS NOT NULL;

INSERT INTO recommender.deployment (model_id, deployed_at)
SELECT model_id, published_at
FROM recommender.model
WHERE published_at IS NOT NULL
ORDER BY published_at;
UPDATE recommender.deployment
SET previous_id = before.deployment_id
FROM (
    SELECT deployment_id AS later_id, lag(deployment_id) OVER (ORDER BY deployment_id) AS deployment_id
    FROM recommender.deployment
) AS before
WHERE deployment.deployment_id = before.later_id;

CREATE FUNCTION recommender.require_sound_model(model_id text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    refused_for text;
BEGIN
    -- Who refuses it at the moment is waited for.
    SELECT known.refused INTO refused_for
    FROM recommender.model AS known
    WHERE known.model_id = require_sound_model.model_id
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('model %L is not in recommender.model: publish it first', require_sound_model.model_id);
    ELSIF refused_for IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('model %L was refused (%s): publish another one', require_sound_model.model_id, refused_for);
    END IF;
END
$$;

COMMENT ON FUNCTION recommender.require_sound_model(text) IS
    'Raises object_not_in_prerequisite_state for a model that is not known, or was refused.';

CREATE FUNCTION recommender.lock_deployment()
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
-- Of two who deploy at once the second waits, and then comes after the first: also in what it rolls back to.
AS $$ SELECT pg_advisory_xact_lock(hashtextextended('recommender deployment', 0)) $$;

COMMENT ON FUNCTION recommender.lock_deployment() IS 'Makes this transaction the only one that deploys until its end.';

CREATE FUNCTION recommender.deploy(model_id text, challenger_id text DEFAULT NULL, challenger_share double precision DEFAULT 0)
RETURNS recommender.deployment
LANGUAGE plpgsql
-- With the caller's rights: asking for songs is no right to say who answers.
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    deployed recommender.deployment;
BEGIN
    PERFORM recommender.lock_deployment();
    PERFORM recommender.require_sound_model(deploy.model_id);
    IF deploy.challenger_id IS NOT NULL THEN
        PERFORM recommender.require_sound_model(deploy.challenger_id);
    END IF;
    INSERT INTO recommender.deployment AS deployment (model_id, challenger_id, challenger_share, previous_id)
    VALUES (
        deploy.model_id, deploy.challenger_id, deploy.challenger_share,
        (SELECT max(before.deployment_id) FROM recommender.deployment AS before)
    )
    RETURNING
        deployment.deployment_id, deployment.model_id, deployment.challenger_id, deployment.challenger_share,
        deployment.previous_id, deployment.deployed_at
    INTO deployed;
    RETURN deployed;
END
$$;

COMMENT ON FUNCTION recommender.deploy(text, text, double precision) IS
    'Has a model answer from now on, and a challenger for a share of the sequences; neither may be unknown or refused.';

CREATE FUNCTION recommender.roll_back()
RETURNS recommender.deployment
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    serving recommender.deployment;
    restored recommender.deployment;
    deployed recommender.deployment;
BEGIN
    PERFORM recommender.lock_deployment();
    SELECT newest.deployment_id, newest.model_id, newest.previous_id
    INTO serving.deployment_id, serving.model_id, serving.previous_id
    FROM recommender.deployment AS newest
    ORDER BY newest.deployment_id DESC
    LIMIT 1;
    -- What was refused since then is passed over; a refused challenger is left out.
    WITH RECURSIVE way (deployment_id, model_id, challenger_id, challenger_share, previous_id) AS (
        SELECT before.deployment_id, before.model_id, before.challenger_id, before.challenger_share, before.previous_id
        FROM recommender.deployment AS before
        WHERE before.deployment_id = serving.previous_id
        UNION ALL
        SELECT before.deployment_id, before.model_id, before.challenger_id, before.challenger_share, before.previous_id
        FROM way
        JOIN recommender.deployment AS before ON before.deployment_id = way.previous_id
    )
    SELECT way.deployment_id, way.model_id, challenger.model_id,
        CASE WHEN challenger.model_id IS NULL THEN 0 ELSE way.challenger_share END, way.previous_id
    INTO restored.deployment_id, restored.model_id, restored.challenger_id, restored.challenger_share, restored.previous_id
    FROM way
    JOIN recommender.model ON model.model_id = way.model_id AND model.refused IS NULL
    LEFT JOIN recommender.model AS challenger ON challenger.model_id = way.challenger_id AND challenger.refused IS NULL
    ORDER BY way.deployment_id DESC
    LIMIT 1;
    IF restored.deployment_id IS NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = CASE
            WHEN serving.deployment_id IS NULL THEN 'no model was deployed yet: there is nothing to roll back'
            ELSE format('no sound model was deployed before %L: activate one by its id instead', serving.model_id)
        END;
    END IF;
    INSERT INTO recommender.deployment AS deployment (model_id, challenger_id, challenger_share, previous_id)
    VALUES (restored.model_id, restored.challenger_id, restored.challenger_share, restored.previous_id)
    RETURNING
        deployment.deployment_id, deployment.model_id, deployment.challenger_id, deployment.challenger_share,
        deployment.previous_id, deployment.deployed_at
    INTO deployed;
    RETURN deployed;
END
$$;

COMMENT ON FUNCTION recommender.roll_back() IS
    'Restores what was deployed before; once more, what was before that.  Refused when there is nothing before.';

-- --- figures -------------------------------------------------------------------------------------------------------------------

CREATE TABLE recommender.served (
    model_id text NOT NULL
        -- prevents figures of models that were never known
        CONSTRAINT served_model_id_fkey REFERENCES recommender.model (model_id),
    -- in UTC
    day date NOT NULL,
    answers bigint NOT NULL DEFAULT 0,
    -- in all of these answers together
    songs bigint NOT NULL DEFAULT 0,
    -- answers for which the model had to fall back on what it knows of unknown songs
    fallbacks bigint NOT NULL DEFAULT 0,
    -- prevents two rows that would each be half of the truth; serves adding to one
    PRIMARY KEY (model_id, day),
    -- prevents figures that fell below nothing
    CONSTRAINT served_check CHECK (answers >= 0 AND songs >= 0 AND fallbacks >= 0)
);

COMMENT ON TABLE recommender.served IS 'What each model answered, a row a day; services add to it now and then.';

CREATE VIEW recommender.feedback_by_model AS
SELECT
    model_id,
    day,
    sum(answers)::bigint AS answers,
    sum(songs)::bigint AS songs,
    sum(fallbacks)::bigint AS fallbacks,
    sum(played)::bigint AS played,
    sum(skipped)::bigint AS skipped,
    sum(liked)::bigint AS liked,
    sum(never_again)::bigint AS never_again
FROM (
    SELECT model_id, day, answers, songs, fallbacks, 0 AS played, 0 AS skipped, 0 AS liked, 0 AS never_again
    FROM recommender.served
    UNION ALL
    SELECT
        model_id,
        (happened_at AT TIME ZONE 'UTC')::date,
        0, 0, 0,
        count(*) FILTER (WHERE event = 'played'),
        count(*) FILTER (WHERE event = 'skipped'),
        count(*) FILTER (WHERE event = 'liked'),
        count(*) FILTER (WHERE event = 'never_again')
    FROM recommender.feedback
    WHERE model_id IS NOT NULL
    GROUP BY model_id, (happened_at AT TIME ZONE 'UTC')::date
) AS figure
GROUP BY model_id, day;

COMMENT ON VIEW recommender.feedback_by_model IS
    'What each model answered, and what listeners did with its songs, a row for each model and day (UTC).';

-- The columns as before and two more.  The model is now the one that is deployed; before the first deployment the last registered.
CREATE OR REPLACE VIEW recommender.status AS
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
    model.model_age_seconds,
    model.challenger_id,
    model.challenger_share
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
        known.model_id,
        EXTRACT(EPOCH FROM clock_timestamp() - COALESCE(known.trained_at, known.registered_at))::double precision
            AS model_age_seconds,
        deployed.challenger_id,
        deployed.challenger_share
    FROM recommender.model AS known
    LEFT JOIN (
        SELECT model_id, challenger_id, challenger_share FROM recommender.deployment ORDER BY deployment_id DESC LIMIT 1
    ) AS deployed ON deployed.model_id = known.model_id
    ORDER BY deployed.model_id IS NULL, known.registered_at DESC
    LIMIT 1
) AS model ON true;

COMMENT ON VIEW recommender.status IS
    'One row: what waits and for how long, what failed within a day and why, the model that is deployed (before the first '
    'deployment: that was registered last), and its challenger.';

-- deployment says it, with what was before
ALTER TABLE recommender.model DROP COLUMN published_at;

-- --- keys ----------------------------------------------------------------------------------------------------------------------

CREATE TABLE recommender.api_key (
    -- the part of a key that may be shown: b4mr_<key_id>_<secret>
    key_id text PRIMARY KEY,
    -- whose it is
    name text NOT NULL,
    -- SHA-256.  The secret has 256 random bits, so nobody can try them all and a slow hash would only slow down requests.
    secret_hash bytea NOT NULL,
    -- whether it may activate models, beyond asking and reporting
    may_manage boolean NOT NULL DEFAULT false,
    -- NULL: as many as the service's settings allow
    requests_per_minute integer,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    -- NULL: never
    expires_at timestamptz,
    revoked_at timestamptz,
    -- prevents ids that cannot be told from the secret behind them
    CONSTRAINT api_key_key_id_check CHECK (key_id ~ '^[0-9a-f]{8,32}$'),
    -- prevents names that break the lines of a list
    CONSTRAINT api_key_name_check CHECK (name ~ '^[^[:cntrl:]]{1,100}$'),
    -- prevents that something else than a hash is stored, the secret itself above all
    CONSTRAINT api_key_secret_hash_check CHECK (octet_length(secret_hash) = 32),
    -- prevents keys that may never ask
    CONSTRAINT api_key_requests_per_minute_check CHECK (requests_per_minute > 0)
);

COMMENT ON TABLE recommender.api_key IS 'Who may use the service over HTTP.  Made and revoked by the owner: python cli.py keys.';

-- --- what an answer says of itself ---------------------------------------------------------------------------------------------

ALTER TABLE recommender.request
    -- fallback, unknown ids, rules applied and relaxed, seed; NULL until it is answered
    ADD COLUMN facts jsonb,
    -- prevents facts of an answer that is not there, and facts that are no JSON object
    ADD CONSTRAINT request_facts_check CHECK (facts IS NULL OR (state = 'done' AND jsonb_typeof(facts) = 'object'));

-- Functions may be executed by everybody unless that is taken away.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender FROM PUBLIC;
