-- Models that the service knows, and the one that it is to follow.

-- name: register
-- Makes a model known, so that answers can be traced to it; again with the same id, it corrects where the model lies.
INSERT INTO recommender.model (model_id, path, encoders_digest, snapshot_digest, settings, metrics, trained_at)
VALUES (%(model_id)s, %(path)s, %(encoders_digest)s, %(snapshot_digest)s, %(settings)s, %(metrics)s, %(trained_at)s)
ON CONFLICT (model_id) DO UPDATE SET path = EXCLUDED.path, metrics = EXCLUDED.metrics;

-- name: publish
-- Makes a model the latest one, also when it was that before: the way back to an older model.
UPDATE recommender.model SET published_at = clock_timestamp() WHERE model_id = %(model_id)s RETURNING model_id;

-- name: latest
-- The model that was published last.
SELECT model_id, path, encoders_digest, snapshot_digest, settings, metrics, trained_at, published_at
FROM recommender.model
WHERE published_at IS NOT NULL
ORDER BY published_at DESC
LIMIT 1;
