-- Takes away everything that the migrations and setup.sql brought; run by the owner:
--
--     psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f storage/uninstall.sql
--
-- The schema `music` holds imported data and stays, unless asked for:
--
--     PGOPTIONS='-c bert4musicrec.drop_music=yes' psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f storage/uninstall.sql

DROP SCHEMA IF EXISTS recommender CASCADE;

DO $$
DECLARE
    has_role CONSTANT boolean := EXISTS (SELECT FROM pg_roles WHERE rolname = 'recommender_service');
    has_music CONSTANT boolean := to_regnamespace('music') IS NOT NULL;
BEGIN
    IF current_setting('bert4musicrec.drop_music', true) = 'yes' THEN
        DROP SCHEMA IF EXISTS music CASCADE;
    ELSIF has_role AND has_music THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA music FROM recommender_service;
        REVOKE ALL ON SCHEMA music FROM recommender_service;
    END IF;
    IF has_role THEN
        BEGIN
            DROP ROLE recommender_service;
        EXCEPTION
            WHEN dependent_objects_still_exist THEN
                RAISE NOTICE 'recommender_service stays: it has rights in another database or on tables granted by hand (DROP OWNED BY)';
        END;
    END IF;
END
$$;
