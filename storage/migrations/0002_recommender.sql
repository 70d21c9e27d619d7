-- What the service needs beside the music: models, requests, recommendations.  The schema itself is made by the migrator.

CREATE TABLE recommender.model (
    model_id text PRIMARY KEY,
    -- the checkpoint's folder, as the service that registered it sees it
    path text NOT NULL,
    -- what every answer of this model can be traced to
    encoders_digest text NOT NULL,
    snapshot_digest text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    metrics jsonb NOT NULL DEFAULT '{}',
    trained_at timestamptz,
    registered_at timestamptz NOT NULL DEFAULT now(),
    -- NULL: known, never published.  The service follows the latest one, so publishing an old model again goes back to it
    published_at timestamptz
);

-- serves the service's question for the newest published model
CREATE INDEX model_published_at_idx ON recommender.model (published_at DESC) WHERE published_at IS NOT NULL;

-- Numbers the claims.  A claim's number only grows, so a worker that was away too long holds a number that no longer counts.
CREATE SEQUENCE recommender.fence AS bigint;

CREATE TABLE recommender.request (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    playlist_id text NOT NULL,
    options jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'queued',
    -- claims so far
    attempts integer NOT NULL DEFAULT 0,
    -- not to be claimed earlier: the backoff after a failed attempt
    not_before timestamptz NOT NULL DEFAULT now(),
    -- while running: until then it belongs to its worker, afterwards to whoever takes it
    lease_until timestamptz,
    -- the number of the latest claim; only its holder may finish
    fence bigint,
    worker text,
    error text,
    idempotency_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- prevents that a request sent again is answered twice
    CONSTRAINT request_idempotency_key_key UNIQUE (idempotency_key),
    -- prevents states that no worker knows
    CONSTRAINT request_state_check CHECK (state IN ('queued', 'running', 'done', 'failed')),
    -- prevents a running request without an end to its lease (it would be lost with its worker), and a lease on any other
    CONSTRAINT request_lease_check CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    -- prevents a failed request that does not say why
    CONSTRAINT request_error_check CHECK (state <> 'failed' OR error IS NOT NULL),
    -- prevents a finished request without its time, which would never be cleared away
    CONSTRAINT request_finished_check CHECK ((state IN ('done', 'failed')) = (finished_at IS NOT NULL)),
    -- prevents options that are no JSON object
    CONSTRAINT request_options_check CHECK (jsonb_typeof(options) = 'object')
) WITH (
    -- a queue's rows die quickly: without this, claims wade through dead rows until a fifth of the table is dead
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500
);

-- serves `claim`: open requests by the time from which they may be taken, expired leases among them
CREATE INDEX request_claimable_idx ON recommender.request ((COALESCE(lease_until, not_before)), request_id)
    WHERE state IN ('queued', 'running');
-- serves clearing away what was finished long ago
CREATE INDEX request_finished_at_idx ON recommender.request (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE recommender.recommendation (
    request_id bigint NOT NULL
        -- prevents answers to nothing, and removes them with their request
        CONSTRAINT recommendation_request_id_fkey REFERENCES recommender.request (request_id) ON DELETE CASCADE,
    playlist_id text NOT NULL,
    -- from 1, the best first
    rank integer NOT NULL,
    song_id text NOT NULL,
    score double precision NOT NULL,
    reasons jsonb NOT NULL DEFAULT '[]',
    -- NULL: the answer does not come from a model
    model_id text
        -- prevents answers that cannot be traced to their model
        CONSTRAINT recommendation_model_id_fkey REFERENCES recommender.model (model_id),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- prevents two songs at one rank, and two workers' answers to one request
    PRIMARY KEY (request_id, rank),
    -- prevents the same song twice in one answer
    CONSTRAINT recommendation_request_id_song_id_key UNIQUE (request_id, song_id),
    -- prevents ranks from 0
    CONSTRAINT recommendation_rank_check CHECK (rank >= 1)
);

-- serves the question for a playlist's latest songs
CREATE INDEX recommendation_playlist_id_idx ON recommender.recommendation (playlist_id, created_at DESC);
-- serves deleting a model, which looks for its answers
CREATE INDEX recommendation_model_id_idx ON recommender.recommendation (model_id);

CREATE FUNCTION recommender.request(playlist_id text, options jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    accepted bigint;
    earlier_playlist_id text;
    was_idle boolean;
BEGIN
    -- Waking the workers only when nothing was waiting: a NOTIFY with every insert makes commits queue up behind one another
    -- (64 clients: 594 instead of 15,622 inserts a second).  Workers that poll as well catch what falls into the gap.
    SELECT NOT EXISTS (
        SELECT FROM recommender.request AS waiting
        WHERE waiting.state = 'queued' AND COALESCE(waiting.lease_until, waiting.not_before) <= statement_timestamp()
    ) INTO was_idle;
    INSERT INTO recommender.request (playlist_id, options, idempotency_key)
    VALUES (request.playlist_id, request.options, request.idempotency_key)
    ON CONFLICT ON CONSTRAINT request_idempotency_key_key DO NOTHING
    RETURNING recommender.request.request_id INTO accepted;
    IF accepted IS NULL THEN
        SELECT earlier.request_id, earlier.playlist_id INTO accepted, earlier_playlist_id
        FROM recommender.request AS earlier
        WHERE earlier.idempotency_key = request.idempotency_key;
        IF earlier_playlist_id <> request.playlist_id THEN
            RAISE unique_violation USING
                CONSTRAINT = 'request_idempotency_key_key',
                MESSAGE = format('idempotency key %L was used for playlist %L before', request.idempotency_key, earlier_playlist_id);
        END IF;
    ELSIF was_idle THEN
        PERFORM pg_notify('recommender', '');
    END IF;
    RETURN accepted;
END
$$;

COMMENT ON FUNCTION recommender.request(text, jsonb, text) IS
    'Asks for songs that continue a playlist; returns the number under which recommender.recommendation gets them.';
