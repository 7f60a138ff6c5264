-- Billing. Stripe is the truth about money; these tables hold its latest known state, and what is still to be learnt.

CREATE TABLE billing_customers (
    id                  text PRIMARY KEY,
    user_id             uuid UNIQUE REFERENCES users ON DELETE SET NULL,
    checkout_session_id text UNIQUE,
    returned_at         timestamptz,
    sync_at             timestamptz,
    reconciling         boolean NOT NULL DEFAULT false,
    failures            integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    fence               bigint NOT NULL DEFAULT 0,
    lease_until         timestamptz,
    synced_at           timestamptz,
    gone_at             timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now()
);

-- Customers with something to do.
CREATE INDEX billing_customers_due ON billing_customers (sync_at)
    WHERE sync_at IS NOT NULL OR lease_until IS NOT NULL OR user_id IS NULL;

COMMENT ON TABLE billing_customers IS 'The Stripe customer of a user; only this says whose subscriptions those are.';
COMMENT ON COLUMN billing_customers.user_id IS 'Null once the user is deleted: then the customer is to be closed.';
COMMENT ON COLUMN billing_customers.checkout_session_id IS 'The newest Checkout session, open or not.';
COMMENT ON COLUMN billing_customers.returned_at IS 'When somebody last came back from that session and so caused a sync.';
COMMENT ON COLUMN billing_customers.sync_at IS 'When to fetch the subscriptions again; null: nothing says that they changed.';
COMMENT ON COLUMN billing_customers.reconciling IS 'Whether the sync is due for its age alone, so that a change it finds is drift.';
COMMENT ON COLUMN billing_customers.failures IS 'Syncs that failed in a row.';
COMMENT ON COLUMN billing_customers.fence IS 'Raised by every sync; a write that carries an older fence changes nothing.';
COMMENT ON COLUMN billing_customers.synced_at IS 'When the fetch of what is stored began.';
COMMENT ON COLUMN billing_customers.gone_at IS 'When Stripe was found not to have it any more; the next checkout makes another.';

CREATE TABLE billing_subscriptions (
    id                 text PRIMARY KEY,
    customer_id        text NOT NULL REFERENCES billing_customers ON DELETE CASCADE ON UPDATE CASCADE,
    status             text NOT NULL,
    price_ids          text[] NOT NULL,
    current_period_end timestamptz,
    cancel_at          timestamptz,
    past_due_since     timestamptz,
    created_at         timestamptz NOT NULL,
    CHECK ((status = 'past_due') = (past_due_since IS NOT NULL))
);

CREATE INDEX billing_subscriptions_of_customer ON billing_subscriptions (customer_id);

COMMENT ON COLUMN billing_subscriptions.cancel_at IS 'When it ends, if it has been cancelled.';
COMMENT ON COLUMN billing_subscriptions.past_due_since IS 'When it was first seen to be past due; the grace counts from here.';

CREATE TABLE billing_events (
    id          text PRIMARY KEY,
    type        text NOT NULL,
    customer_id text,
    status      text NOT NULL CHECK (status IN ('pending', 'processed', 'ignored', 'parked')),
    attempts    integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    error_code  text,
    created_at  timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK ((status = 'pending') = (finished_at IS NULL))
);

CREATE INDEX billing_events_pending ON billing_events (customer_id, received_at) WHERE status = 'pending';
CREATE INDEX billing_events_parked ON billing_events (finished_at DESC) WHERE status = 'parked';
CREATE INDEX billing_events_done ON billing_events (finished_at) WHERE status IN ('processed', 'ignored');

COMMENT ON TABLE billing_events IS
    'The inbox of Stripe events. An event only says that a customer has changed, so its content is not kept.';
COMMENT ON COLUMN billing_events.created_at IS 'When Stripe made it.';
COMMENT ON COLUMN billing_events.attempts IS 'Syncs for it that failed for a reason that lasts; too many park it.';
