-- Rights of the service, granted by the owner after the migrations, and again after each new one:
--
--     psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f storage/setup.sql
--     psql "$DATABASE_URL" -c '\password recommender_service'
--
-- The service reads the music, works on its own tables, and cannot create, change or drop anything.  Whoever has tables of their
-- own grants SELECT on what the four query files read.

DO $$
BEGIN
    CREATE ROLE recommender_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
EXCEPTION
    -- A role belongs to all databases of a server: another one may have it already, or be making it now.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

GRANT USAGE ON SCHEMA music TO recommender_service;
GRANT SELECT ON ALL TABLES IN SCHEMA music TO recommender_service;
GRANT USAGE ON SCHEMA recommender TO recommender_service;
GRANT SELECT ON recommender.schema_migration, recommender.setting, recommender.latest, recommender.status TO recommender_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON recommender.model, recommender.request, recommender.recommendation TO recommender_service;
-- Feedback enters by a function; only the owner removes it, and makes and revokes keys.
GRANT SELECT ON recommender.feedback, recommender.play, recommender.feedback_by_model, recommender.api_key TO recommender_service;
GRANT SELECT, INSERT ON recommender.deployment TO recommender_service;
GRANT SELECT, INSERT, UPDATE ON recommender.served TO recommender_service;
GRANT USAGE ON SEQUENCE recommender.fence TO recommender_service;

-- Functions may be executed by everybody unless that is taken away.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender TO recommender_service;
