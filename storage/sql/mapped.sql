-- The parts of the files that `cli.py map` writes; {names} are filled in as text.

-- name: setup_head
-- What the recommender needs in this database; read it, then let the owner of the database run it:
--
--     psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f '{file}'
--     psql "$DATABASE_URL" -c '\password {role}'
--
-- It may be run again, after an update of the project or a new mapping.  Your tables are not changed: the role gets SELECT on the
-- columns that the query files read, and where row-level security is on, a policy that shows it all rows.
CREATE SCHEMA IF NOT EXISTS recommender;
CREATE TABLE IF NOT EXISTS recommender.schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: apply_once
-- Applied once and remembered, as `cli.py migrate` does.
DO $apply$
BEGIN
    IF EXISTS (SELECT FROM recommender.schema_migration WHERE version = {version}) THEN
        RETURN;
    END IF;
    EXECUTE {tag}
{text}
{tag};
    INSERT INTO recommender.schema_migration (version, name, checksum) VALUES ({version}, {file_name}, {checksum});
END
$apply$;

-- name: typed_latest
-- The newest answers with song and playlist ids in their own types.
SELECT recommender.create_latest({types});

-- name: policy
-- Row-level security hides every row from a role without a policy, and says nothing.
DROP POLICY IF EXISTS {policy} ON {table};
CREATE POLICY {policy} ON {table} FOR SELECT TO {role} USING (true);

-- name: trigger
-- Ask whenever songs are added: a trigger to attach by taking the dashes away.
-- CREATE TRIGGER ask_for_added AFTER INSERT ON {table}
--     REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION recommender.ask_for_added({column});

-- name: uninstall
-- Takes away everything that setup.sql brought, triggers that call its functions included; run by the owner:
--
--     psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f '{file}'
DROP SCHEMA IF EXISTS recommender CASCADE;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {role_text}) THEN
        RETURN;
    END IF;
{taken}
    BEGIN
        DROP ROLE {role};
    EXCEPTION
        WHEN dependent_objects_still_exist THEN
            RAISE NOTICE 'the role % stays: it has rights in another database or on tables granted by hand', {role_text};
    END;
END
$$;

-- name: settings
-- The settings file.
# Leads every command to the query files beside it: --config FILE, or copied into the project's folder.  The password stays out:
# the environment names the server (DATABASE_URL).
[database]
queries_folder = "{where}"
