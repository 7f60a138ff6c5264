-- Billing: what was asked of Stripe and whose outcome may be unknown, and what of a subscription entitles to nothing.

-- It waits behind long transactions, and whoever signs up waits behind it: better to give up and be run again.
SET LOCAL lock_timeout = '5s';

CREATE TABLE billing_creations (
    user_id  uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    what     text NOT NULL CHECK (what IN ('customer', 'checkout')),
    attempt  integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    failed   boolean NOT NULL DEFAULT false,
    begun_at timestamptz NOT NULL DEFAULT now(),
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, what)
);

COMMENT ON TABLE billing_creations IS
    'Customers and Checkout sessions that are being made at Stripe. A row goes once what it is about is stored.';
COMMENT ON COLUMN billing_creations.attempt IS 'Part of the idempotency key, under which Stripe keeps a failure for a day.';
COMMENT ON COLUMN billing_creations.failed IS 'Whether Stripe keeps a failure under the key of this attempt.';
COMMENT ON COLUMN billing_creations.begun_at IS 'When this attempt was first asked for.';
COMMENT ON COLUMN billing_creations.asked_at IS 'When it was last asked for.';

ALTER TABLE billing_subscriptions ADD COLUMN idle_price_ids text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN billing_subscriptions.idle_price_ids IS
    'Those of its prices that entitle to nothing: their quantity is 0, or payment is not collected.';
