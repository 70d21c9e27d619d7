-- What a health check asks of the server.

-- name: has_session_beside
-- Whether this role has another session in this database, from the same address: a worker in its container has no other neighbour.
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database()
        AND usename = current_user
        AND application_name = current_setting('application_name')
        AND client_addr IS NOT DISTINCT FROM inet_client_addr()
        AND pid <> pg_backend_pid()
);
