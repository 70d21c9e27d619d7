-- Models that the service knows, which of them answers, and how they fare.

-- name: register
-- Makes a model known, so that answers can be traced to it; again with the same id, it corrects where the model lies.
INSERT INTO recommender.model (model_id, path, encoders_digest, snapshot_digest, settings, metrics, trained_at)
VALUES (%(model_id)s, %(path)s, %(encoders_digest)s, %(snapshot_digest)s, %(settings)s, %(metrics)s, %(trained_at)s)
ON CONFLICT (model_id) DO UPDATE SET path = EXCLUDED.path, metrics = EXCLUDED.metrics;

-- name: introduce
-- Makes a model known, unless it is: whoever answers with it must not correct what was published.
INSERT INTO recommender.model (model_id, path, encoders_digest, snapshot_digest, settings, metrics, trained_at)
VALUES (%(model_id)s, %(path)s, %(encoders_digest)s, %(snapshot_digest)s, %(settings)s, %(metrics)s, %(trained_at)s)
ON CONFLICT (model_id) DO NOTHING;

-- name: known
-- All models, the one that was trained last first.
SELECT model_id, path, encoders_digest, snapshot_digest, settings, metrics, trained_at, registered_at, refused
FROM recommender.model
ORDER BY COALESCE(trained_at, registered_at) DESC, model_id;

-- name: refuse
-- Says why a model must not answer, or with NULL that it may again.
UPDATE recommender.model SET refused = %(reason)s WHERE model_id = %(model_id)s RETURNING model_id;

-- name: deploy
-- Has a model answer from now on, and a challenger for a share of the sequences.
SELECT deployment_id, model_id, challenger_id, challenger_share, deployed_at
FROM recommender.deploy(%(model_id)s, %(challenger_id)s, %(challenger_share)s);

-- name: current
-- The deployment that counts.  Each process asks this every few seconds: it reads one row through the primary key.
SELECT deployment_id, model_id, challenger_id, challenger_share, deployed_at
FROM recommender.deployment
ORDER BY deployment_id DESC
LIMIT 1;

-- name: roll_back
-- Restores what was deployed before.
SELECT deployment_id, model_id, challenger_id, challenger_share, deployed_at
FROM recommender.roll_back();

-- name: add_served
-- Adds to the figures of today.  In one order of models, so that two processes that add at once wait and do not block each other.
INSERT INTO recommender.served AS served (model_id, day, answers, songs, fallbacks)
SELECT model_id, (statement_timestamp() AT TIME ZONE 'UTC')::date, answers, songs, fallbacks
FROM unnest(%(model_ids)s::text[], %(answers)s::bigint[], %(songs)s::bigint[], %(fallbacks)s::bigint[])
    AS added (model_id, answers, songs, fallbacks)
ORDER BY model_id
ON CONFLICT (model_id, day) DO UPDATE SET
    answers = served.answers + EXCLUDED.answers,
    songs = served.songs + EXCLUDED.songs,
    fallbacks = served.fallbacks + EXCLUDED.fallbacks;

-- name: figures
-- What each model answered from a day on, and what listeners did with its songs; the one that was trained last first.
SELECT
    model.model_id,
    COALESCE(sum(figure.answers), 0)::bigint AS answers,
    COALESCE(sum(figure.songs), 0)::bigint AS songs,
    COALESCE(sum(figure.fallbacks), 0)::bigint AS fallbacks,
    COALESCE(sum(figure.played), 0)::bigint AS played,
    COALESCE(sum(figure.skipped), 0)::bigint AS skipped,
    COALESCE(sum(figure.liked), 0)::bigint AS liked,
    COALESCE(sum(figure.never_again), 0)::bigint AS never_again
FROM recommender.model
LEFT JOIN recommender.feedback_by_model AS figure
    ON figure.model_id = model.model_id AND figure.day >= COALESCE(%(since)s::date, '-infinity')
GROUP BY model.model_id
ORDER BY COALESCE(model.trained_at, model.registered_at) DESC, model.model_id;
