-- Brings any database, empty or older, to the current schema:
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/migrate.sql
-- Safe to run again and safe to run twice at once. Each step is one transaction together with its
-- line in the ledger, so a failed step leaves the earlier version whole; a step that cannot be one
-- transaction says so, and its parts leave the earlier version working and may be run again.
-- It connects once more to begin with: what is to be set for it goes into PGOPTIONS.

\set ON_ERROR_STOP on
\set QUIET on

-- A migration needs a session to itself: for its lock, for its settings, for indexes that are built concurrently. What a
-- session leaves behind goes with it, unless its server is only lent by a pooler. So a lock is left behind, by one
-- connection, and looked for by the next, which waits a moment for the end of the first. Its number is never used again.
SELECT (random() * 2147483647)::integer AS mark \gset
SELECT pg_advisory_lock(730461220, :mark) \g /dev/null
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 730461220 AND objid = :mark AND pid = pg_backend_pid()
) AS kept \gset
\connect
\set SHOW_CONTEXT never
SET LOCAL gembackend.mark = :mark \; SET LOCAL gembackend.kept = :'kept' \; DO $$
DECLARE
    kept   boolean := current_setting('gembackend.kept');
    mark   integer := current_setting('gembackend.mark');
    holder integer;
BEGIN
    FOR moment IN 1..100 LOOP
        holder := (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 730461220 AND objid = mark);
        EXIT WHEN holder IS NULL OR holder = pg_backend_pid() OR NOT kept;
        PERFORM pg_sleep(0.05);
    END LOOP;
    IF holder = pg_backend_pid() THEN
        PERFORM pg_advisory_unlock(730461220, mark);
    END IF;
    IF holder IS NOT NULL OR NOT kept THEN
        RAISE 'this connection goes through a pooler that shares its servers (transaction mode), and a migration needs one to itself: connect to PostgreSQL, or to a pool in session mode';
    END IF;
END
$$;
\set SHOW_CONTEXT errors

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
    -- Not one transaction: see there.
    \ir migrations/0007_known_places.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (7, 'known_places', 4);
    SET lock_timeout = '60s';
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 8) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0008_billing_creations.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (8, 'billing_creations', 4);
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 9) AS pending \gset
\if :pending
    BEGIN;
    \ir migrations/0009_quota.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (9, 'quota', 4);
    COMMIT;
\endif

SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = 10) AS pending \gset
\if :pending
    -- Not one transaction: see there.
    \ir migrations/0010_search_text.sql
    INSERT INTO schema_migrations (version, name, compatible_from) VALUES (10, 'search_text', 4);
    SET lock_timeout = '60s';
\endif

SELECT pg_advisory_unlock(7304612205398231) \g /dev/null

SELECT 'schema version ' || max(version) AS "gembackend" FROM schema_migrations;
