-- What strangers do no longer counts against whoever holds a fresh code sent to the phone: ops/accounts.md has the model.
--
-- This step is not one transaction, because the index of unverified users is built while people go on signing up. Each
-- of its parts may be run again, and the release before can live with each of them.

SET statement_timeout = 0;

BEGIN;

-- It waits behind long transactions (a backup), and everybody waits behind it: better to give up and be run again.
SET LOCAL lock_timeout = '5s';

CREATE TABLE IF NOT EXISTS known_places (
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place   bytea NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, place)
);

CREATE INDEX IF NOT EXISTS known_places_stale ON known_places (seen_at);

COMMENT ON TABLE known_places IS 'Where codes of a user have been redeemed; what strangers do elsewhere never counts there.';
COMMENT ON COLUMN known_places.place IS 'An HMAC of the client''s address.';

CREATE TABLE IF NOT EXISTS code_failures (
    phone_key bytea PRIMARY KEY,
    day       date NOT NULL,
    known     integer NOT NULL DEFAULT 0 CHECK (known >= 0),
    proven    integer NOT NULL DEFAULT 0 CHECK (proven >= 0),
    places    bytea[] NOT NULL DEFAULT '{}',
    repeats   integer NOT NULL DEFAULT 0 CHECK (repeats >= 0)
);

CREATE INDEX IF NOT EXISTS code_failures_stale ON code_failures (day);

COMMENT ON TABLE code_failures IS 'Wrong codes of a phone on a UTC day, of every purpose, by where they came from.';
COMMENT ON COLUMN code_failures.known IS 'From known places.';
COMMENT ON COLUMN code_failures.proven IS 'From where the login code had been asked for with the password.';
COMMENT ON COLUMN code_failures.places IS 'From elsewhere: each place for its first wrong code.';
COMMENT ON COLUMN code_failures.repeats IS 'From elsewhere: the second and later wrong codes of places.';

-- Releases before schema version 7 go on with failures and failures_on, each purpose by itself. To be removed in a
-- later release.
ALTER TABLE otp_challenges
    ADD COLUMN IF NOT EXISTS asked_from bytea,
    ADD COLUMN IF NOT EXISTS strange_attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS renewals integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS otp_challenges_purpose_check,
    ADD CONSTRAINT otp_challenges_purpose_check
        CHECK (purpose IN ('login', 'reset', 'login_known', 'reset_known'));

COMMENT ON TABLE otp_challenges IS
    'The newest code of a phone for a purpose, and apart from it the newest that was asked for from a known place.';
COMMENT ON COLUMN otp_challenges.failures IS 'Of releases before schema version 7; code_failures counts since.';
COMMENT ON COLUMN otp_challenges.asked_from IS 'The place that asked for it.';
COMMENT ON COLUMN otp_challenges.attempts IS 'Tries from known places, and from where a login code had been asked for.';
COMMENT ON COLUMN otp_challenges.strange_attempts IS 'Tries from everywhere else.';
COMMENT ON COLUMN otp_challenges.renewals IS 'Codes asked for one after another without one being used.';

ALTER TABLE login_failures
    ADD COLUMN IF NOT EXISTS places bytea[] NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS repeats integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS login_failures_failures_check,
    ADD CONSTRAINT login_failures_failures_check CHECK (failures >= 0);

COMMENT ON TABLE login_failures IS
    'Wrong passwords of the last minutes, by where they came from; enough of them lock there, or everywhere strange.';
COMMENT ON COLUMN login_failures.phone_key IS 'The HMAC of a phone, or of the session that asked for the password again.';
COMMENT ON COLUMN login_failures.failures IS 'From known places, or of the session.';
COMMENT ON COLUMN login_failures.places IS 'From elsewhere: each place for its first wrong password.';
COMMENT ON COLUMN login_failures.repeats IS 'From elsewhere: the second and later wrong passwords of places.';
COMMENT ON COLUMN login_failures.failed_at IS 'When the first of them came.';

-- Tries a code: decides whether this try is looked at, looks, and does what follows, all under the lock of the phone's
-- failures, so that it is exact under any number of parallel tries. Outcomes: redeemed (with whose code it was),
-- refused, and exhausted: not looked at, because the day's wrong codes from there are used up.
CREATE OR REPLACE FUNCTION redeem_code(
    asked_purpose text, asked_phone text, asked_key bytea, tried_from bytea, session_of uuid, tried_hmac bytea,
    new_password_hash text, most_attempts integer, most_in_all integer, most_unknown integer, most_places integer,
    most_repeats integer
) RETURNS TABLE (outcome text, user_id uuid, token_version integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    slots constant text[] := ARRAY[asked_purpose, asked_purpose || '_known'];
    so_far record;
    is_known boolean;
    is_proven boolean;
    is_new boolean;
    listened boolean;
    tried record;
BEGIN
    outcome := 'refused';
    -- A try that can be compared with nothing tells nothing, and is not counted.
    IF NOT EXISTS (SELECT FROM otp_challenges c WHERE c.phone_key = asked_key AND c.purpose = ANY (slots)
                   AND c.used_at IS NULL AND c.expires_at > now()) THEN
        RETURN NEXT;
        RETURN;
    END IF;

    INSERT INTO code_failures AS f (phone_key, day) VALUES (asked_key, today)
    ON CONFLICT (phone_key) DO UPDATE SET
        day = today,
        known = CASE WHEN f.day = today THEN f.known ELSE 0 END,
        proven = CASE WHEN f.day = today THEN f.proven ELSE 0 END,
        places = CASE WHEN f.day = today THEN f.places ELSE '{}' END,
        repeats = CASE WHEN f.day = today THEN f.repeats ELSE 0 END
    RETURNING f.known, f.proven, cardinality(f.places) AS places, f.repeats, tried_from = ANY (f.places) AS seen
    INTO so_far;

    SELECT EXISTS (
        SELECT FROM users u WHERE u.phone = asked_phone AND (u.id = session_of OR EXISTS (
            SELECT FROM known_places k WHERE k.user_id = u.id AND k.place = tried_from))
    ) INTO is_known;
    SELECT asked_purpose = 'login' AND NOT is_known AND EXISTS (
        SELECT FROM otp_challenges c
        WHERE c.phone_key = asked_key AND c.purpose = ANY (slots) AND c.asked_from = tried_from
          AND c.used_at IS NULL AND c.expires_at > now()
    ) INTO is_proven;
    is_new := NOT (is_known OR is_proven OR so_far.seen);

    listened := so_far.known + so_far.proven + so_far.places + so_far.repeats < most_in_all AND CASE
        WHEN is_known THEN true
        WHEN is_proven THEN so_far.proven + so_far.places + so_far.repeats < most_unknown
        WHEN is_new THEN so_far.places < most_places
        ELSE so_far.repeats < most_repeats END;
    IF NOT listened THEN
        outcome := 'exhausted';
        RETURN NEXT;
        RETURN;
    END IF;

    -- A stranger's try is compared with one code, so that it is one guess: with the one that strangers may have asked
    -- for, if it is alive.
    WITH compared AS (
        UPDATE otp_challenges c SET
            attempts = c.attempts + CASE WHEN is_known OR is_proven THEN 1 ELSE 0 END,
            strange_attempts = c.strange_attempts + CASE WHEN is_known OR is_proven THEN 0 ELSE 1 END,
            used_at = CASE WHEN c.code_hmac = tried_hmac THEN now() END
        WHERE c.phone_key = asked_key AND c.used_at IS NULL AND c.expires_at > now() AND CASE
            WHEN is_known OR is_proven THEN c.purpose = ANY (slots) AND c.attempts < most_attempts
            ELSE (is_new OR c.strange_attempts < most_attempts) AND c.purpose = (
                SELECT min(o.purpose) FROM otp_challenges o WHERE o.phone_key = asked_key AND o.purpose = ANY (slots)
                AND o.used_at IS NULL AND o.expires_at > now()) END
        RETURNING c.user_id, c.token_version, c.used_at IS NOT NULL AS matched
    )
    SELECT count(*) AS codes, coalesce(bool_or(c.matched), false) AS matched,
           (array_agg(c.user_id) FILTER (WHERE c.matched))[1] AS user_id,
           (array_agg(c.token_version) FILTER (WHERE c.matched))[1] AS token_version
    FROM compared c INTO tried;

    IF NOT tried.matched THEN
        UPDATE code_failures f SET
            known = f.known + CASE WHEN is_known THEN 1 ELSE 0 END,
            proven = f.proven + CASE WHEN is_proven THEN 1 ELSE 0 END,
            places = CASE WHEN is_new THEN f.places || tried_from ELSE f.places END,
            repeats = f.repeats + CASE WHEN is_known OR is_proven OR is_new THEN 0 ELSE 1 END
        WHERE f.phone_key = asked_key AND tried.codes > 0;
        RETURN NEXT;
        RETURN;
    END IF;

    UPDATE users u SET
        verified_at = coalesce(u.verified_at, now()),
        password_hash = coalesce(new_password_hash, u.password_hash),
        token_version = u.token_version + CASE WHEN new_password_hash IS NULL THEN 0 ELSE 1 END
    WHERE u.id = tried.user_id AND u.token_version = tried.token_version AND u.phone = asked_phone
    RETURNING u.id, u.token_version INTO user_id, token_version;
    IF FOUND THEN
        outcome := 'redeemed';
        UPDATE login_failures f SET failures = 0 WHERE f.phone_key = asked_key AND f.failures > 0;
        INSERT INTO known_places AS k (user_id, place) VALUES (redeem_code.user_id, tried_from)
        ON CONFLICT (user_id, place) DO UPDATE SET seen_at = now();
        -- A reset puts out whoever was in: no place but this one is known any more.
        DELETE FROM known_places k
        WHERE new_password_hash IS NOT NULL AND k.user_id = redeem_code.user_id AND k.place <> tried_from;
    END IF;
    RETURN NEXT;
END
$$;

COMMIT;

-- It waits for transactions that are older than it, a backup for example, and holds nobody up meanwhile.
SET lock_timeout = 0;

-- A build that was broken off leaves an index that is written and never read.
SELECT EXISTS (
    SELECT FROM pg_index WHERE indexrelid = to_regclass('users_unverified') AND NOT indisvalid
) AS broken \gset
\if :broken
    DROP INDEX CONCURRENTLY users_unverified;
\endif

CREATE INDEX CONCURRENTLY IF NOT EXISTS users_unverified ON users (created_at) WHERE verified_at IS NULL;
