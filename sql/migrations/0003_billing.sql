-- Billing. Stripe is the truth about money; these tables hold its latest known state, and what is still to be learnt.

ALTER TABLE users ADD COLUMN pro_until timestamptz;

COMMENT ON COLUMN users.pro_until IS 'When Pro ends by itself; null: never. Whoever reads the tier reads current_tier.';

-- The tier at this moment: Pro ends when its time is over, whether or not anybody notices.
CREATE FUNCTION current_tier(subscription_tier text, pro_until timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN subscription_tier = 'Pro' AND (pro_until IS NULL OR pro_until > now()) THEN 'Pro' ELSE 'Basic' END;

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

-- As before, but for the tier.
CREATE OR REPLACE FUNCTION accept_prompts(
    prompt_ids uuid[], user_ids uuid[], chatroom_ids uuid[], contents text[], idempotency_keys text[],
    request_ids text[], basic_daily_prompts integer, room_limit integer
) RETURNS TABLE (outcome text, prompt_id uuid, accepted_at timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    item record;
    earlier record;
    tier text;
    place bigint;
BEGIN
    -- Everyone locks in the same order, so that batches wait for each other and never in a circle.
    PERFORM FROM users WHERE id = ANY (user_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM chatrooms_metadata WHERE id = ANY (chatroom_ids) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM prompt_usage WHERE user_id = ANY (user_ids) AND day = today ORDER BY user_id FOR UPDATE;

    FOR item IN
        SELECT * FROM unnest(prompt_ids, user_ids, chatroom_ids, contents, idempotency_keys, request_ids)
            WITH ORDINALITY AS t (id, user_id, chatroom_id, content, idempotency_key, request_id, nr)
        ORDER BY nr
    LOOP
        prompt_id := NULL;
        accepted_at := NULL;

        SELECT current_tier(u.subscription_tier, u.pro_until) INTO tier
        FROM chatrooms_metadata r JOIN users u ON u.id = r.user_id
        WHERE r.id = item.chatroom_id AND r.user_id = item.user_id;
        IF NOT FOUND THEN
            outcome := 'not_found';
            RETURN NEXT;
            CONTINUE;
        END IF;

        IF item.idempotency_key IS NOT NULL THEN
            SELECT p.id, p.created_at, p.created_at > now() - interval '24 hours' AS kept,
                   p.chatroom_id = item.chatroom_id AND p.content = item.content AS same
            INTO earlier
            FROM prompts p
            WHERE p.user_id = item.user_id AND p.idempotency_key = item.idempotency_key;
            IF FOUND AND earlier.kept THEN
                outcome := CASE WHEN earlier.same THEN 'replayed' ELSE 'key_reused' END;
                prompt_id := earlier.id;
                accepted_at := earlier.created_at;
                RETURN NEXT;
                CONTINUE;
            ELSIF FOUND THEN
                UPDATE prompts SET idempotency_key = NULL WHERE id = earlier.id;
            END IF;
        END IF;

        IF (SELECT count(*) FROM prompts p
            WHERE p.chatroom_id = item.chatroom_id AND p.status IN ('queued', 'running')) >= room_limit THEN
            outcome := 'room_busy';
            RETURN NEXT;
            CONTINUE;
        END IF;

        INSERT INTO prompt_usage AS u (user_id, day, used)
        SELECT item.user_id, today, 1 WHERE tier = 'Pro' OR basic_daily_prompts > 0
        ON CONFLICT (user_id, day) DO UPDATE SET used = u.used + 1
            WHERE tier = 'Pro' OR u.used < basic_daily_prompts;
        IF NOT FOUND THEN
            outcome := 'daily_limit_reached';
            RETURN NEXT;
            CONTINUE;
        END IF;

        UPDATE chatrooms_metadata SET last_sequence = last_sequence + 1, updated_at = now()
        WHERE id = item.chatroom_id
        RETURNING last_sequence INTO place;

        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, idempotency_key, request_id, charged_on)
        VALUES (item.id, item.user_id, item.chatroom_id, place, item.content, item.idempotency_key,
                item.request_id, today);

        outcome := 'accepted';
        prompt_id := item.id;
        accepted_at := now();
        RETURN NEXT;
    END LOOP;
END
$$;
