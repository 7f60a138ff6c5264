-- The day's quota outlives an account, and what failures give back of it ends somewhere.

-- It waits behind long transactions, and whoever sends a prompt waits behind it: better to give up and be run again.
SET LOCAL lock_timeout = '5s';

ALTER TABLE prompt_usage ADD COLUMN forgiven integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN prompt_usage.forgiven IS
    'How many were refunded although their prompts may have brought the failure about; these refunds end somewhere.';

CREATE TABLE phone_usage (
    phone_key bytea NOT NULL,
    day       date NOT NULL,
    used      integer NOT NULL CHECK (used >= 0),
    forgiven  integer NOT NULL CHECK (forgiven >= 0),
    PRIMARY KEY (phone_key, day)
);

COMMENT ON TABLE phone_usage IS
    'What deleted accounts used, for the next account of the phone; worth nothing once the UTC day is over.';
COMMENT ON COLUMN phone_usage.phone_key IS 'HMAC of the phone, under a key that the database does not have.';

CREATE INDEX phone_usage_over ON phone_usage (day);

COMMENT ON COLUMN prompts.charged_on IS
    'UTC day whose quota is charged; null once it was given back, and of a prompt that was put back by hand.';
