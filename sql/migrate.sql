-- Brings any database, empty or older, to the current schema:
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/migrate.sql
-- Safe to run again and safe to run twice at once. Each step is one transaction together with its
-- line in the ledger, so a failed step leaves the earlier version whole; a step that cannot be one
-- transaction says so, and its parts leave the earlier version working and may be run again.

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET lock_timeout = '60s';

-- One migration at a time; the lock goes with the session. It is asked for again and again, each time in a transaction
-- of its own: whoever waits inside a statement keeps the other from building an index concurrently, which waits for
-- every older transaction, and so both would wait for ever.
DO $$
DECLARE
    told boolean := false;
BEGIN
    WHILE NOT pg_try_advisory_lock(7304612205398231) LOOP
        IF NOT told THEN
            RAISE WARNING 'another migration is running; waiting for its end';
            told := true;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.2);
        COMMIT;
    END LOOP;
END
$$;

CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- The oldest version whose code works on this one too; null: none does.
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS compatible_from integer;

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 1) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0001_initial.sql
    INSERT INTO schema_migrations (version, name) VALUES (1, 'initial');
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 2) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0002_auth.sql
    INSERT INTO schema_migrations (version, name) VALUES (2, 'auth');
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 3) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0003_billing.sql
    INSERT INTO schema_migrations (version, name) VALUES (3, 'billing');
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 4) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0004_prompt_origin.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (4, 'prompt_origin', 3);
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 5) AS pending \gset
\if :pending
    -- Not one transaction: see there.
    \ir migrations/0005_search.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (5, 'search', 4);
    SET lock_timeout = '60s';
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 6) AS pending \gset
\if :pending
    -- Not one transaction: see there.
    \ir migrations/0006_engine.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (6, 'engine', 4);
    SET lock_timeout = '60s';
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 7) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0007_quota.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (7, 'quota', 4);
    COMMIT;
\endif

SELECT pg_advisory_unlock(7304612205398231) \g /dev/null

SELECT 'schema version ' || max(version) AS "gembackend" FROM schema_migrations;
