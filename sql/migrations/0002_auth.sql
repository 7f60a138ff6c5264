-- One-time codes and failed passwords. Both are kept by phone and not by user, so that a phone nobody has leaves
-- the same traces, costs the same time and gets the same answers as any other. The phone itself is not kept here:
-- phone_key is an HMAC of it. What has meant nothing for a day is swept away.

CREATE TABLE otp_challenges (
    phone_key     bytea NOT NULL,
    purpose       text NOT NULL CHECK (purpose IN ('login', 'reset')),
    user_id       uuid,
    token_version integer,
    code_hmac     bytea NOT NULL,
    attempts      integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures      integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    failures_on   date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz,
    PRIMARY KEY (phone_key, purpose),
    CHECK ((user_id IS NULL) = (token_version IS NULL))
);

CREATE INDEX otp_challenges_stale ON otp_challenges (expires_at);

COMMENT ON TABLE otp_challenges IS 'The newest code of a phone for a purpose; a new code replaces the old one.';
COMMENT ON COLUMN otp_challenges.user_id IS
    'Whose code it is; null for a phone nobody has. No foreign key: its check would tell the two apart by time.';
COMMENT ON COLUMN otp_challenges.token_version IS
    'The user''s token version when the code was made: whatever ends the sessions of a user kills the codes as well.';
COMMENT ON COLUMN otp_challenges.failures IS 'Wrong codes tried on the UTC day failures_on, across resends.';

CREATE TABLE login_failures (
    phone_key bytea PRIMARY KEY,
    failures  integer NOT NULL CHECK (failures > 0),
    failed_at timestamptz NOT NULL
);

CREATE INDEX login_failures_stale ON login_failures (failed_at);

COMMENT ON TABLE login_failures IS 'Wrong passwords in a row, each soon after the one before; enough of them lock.';
