-- Login: one-time codes.

CREATE TABLE otp_challenges (
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    purpose    text NOT NULL CHECK (purpose IN ('login', 'reset')),
    code_hmac  bytea NOT NULL,
    attempts   integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    PRIMARY KEY (user_id, purpose)
);

COMMENT ON TABLE otp_challenges IS 'The newest code of a user for a purpose; a new code replaces the old one.';
