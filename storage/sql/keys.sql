-- Keys of callers.  Of a secret only the hash is here.

-- name: create
-- Lets somebody in.
INSERT INTO recommender.api_key (key_id, name, secret_hash, may_manage, requests_per_minute, expires_at)
VALUES (%(key_id)s, %(name)s, %(secret_hash)s, %(may_manage)s, %(requests_per_minute)s, %(expires_at)s);

-- name: active
-- The keys that open the door at the moment.
SELECT key_id, name, secret_hash, may_manage, requests_per_minute, created_at, expires_at, revoked_at
FROM recommender.api_key
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())
ORDER BY created_at, key_id;

-- name: all
-- Every key there ever was, the oldest first.
SELECT key_id, name, secret_hash, may_manage, requests_per_minute, created_at, expires_at, revoked_at
FROM recommender.api_key
ORDER BY created_at, key_id;

-- name: revoke
-- Closes the door to a key; a key that was revoked before keeps the time of that.
UPDATE recommender.api_key
SET revoked_at = COALESCE(revoked_at, statement_timestamp())
WHERE key_id = %(key_id)s
RETURNING key_id;
