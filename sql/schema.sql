-- What sql/migrate.sql makes, to be read. Written by: python -m tests.migration.snapshot

CREATE FUNCTION public.accept_prompts(prompt_ids uuid[], user_ids uuid[], chatroom_ids uuid[], contents text[], idempotency_keys text[], request_ids text[], basic_daily_prompts integer, room_limit integer, traceparents text[] DEFAULT NULL::text[], regenerated_ids uuid[] DEFAULT NULL::uuid[], backlog_room integer DEFAULT NULL::integer) RETURNS TABLE(outcome text, prompt_id uuid, accepted_at timestamp with time zone)
    LANGUAGE plpgsql
    AS $$
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
        SELECT * FROM unnest(prompt_ids, user_ids, chatroom_ids, contents, idempotency_keys, request_ids,
                             traceparents, regenerated_ids)
            WITH ORDINALITY AS t (id, user_id, chatroom_id, content, idempotency_key, request_id,
                                  traceparent, regenerates, nr)
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
                   p.chatroom_id = item.chatroom_id AND p.content = item.content
                   AND p.regenerates IS NOT DISTINCT FROM item.regenerates AS same
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

        -- Last of the refusals but one: what was accepted before is answered, and a room or a user hears of its own limit.
        IF backlog_room <= 0 THEN
            outcome := 'backlog_full';
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

        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, idempotency_key, request_id,
                             traceparent, regenerates, charged_on)
        VALUES (item.id, item.user_id, item.chatroom_id, place, item.content, item.idempotency_key, item.request_id,
                item.traceparent, item.regenerates, today);

        backlog_room := backlog_room - 1;
        outcome := 'accepted';
        prompt_id := item.id;
        accepted_at := now();
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION public.current_tier(subscription_tier text, pro_until timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN ((subscription_tier = 'Pro'::text) AND ((pro_until IS NULL) OR (pro_until > now()))) THEN 'Pro'::text ELSE 'Basic'::text END;

CREATE FUNCTION public.name_message_owner() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    SELECT r.user_id INTO NEW.user_id FROM chatrooms_metadata r WHERE r.id = NEW.chatroom_id;
    RETURN NEW;
END
$$;

CREATE FUNCTION public.queue_for_search() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO search_queue (user_id, prompt_id, said_at)
    SELECT user_id, prompt_id, max(created_at) FROM added GROUP BY user_id, prompt_id
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION public.queue_search_purge() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO search_purges (chatroom_id, user_id) VALUES (OLD.id, OLD.user_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION public.redeem_code(asked_purpose text, asked_phone text, asked_key bytea, tried_from bytea, session_of uuid, tried_hmac bytea, new_password_hash text, most_attempts integer, most_in_all integer, most_unknown integer, most_places integer, most_repeats integer) RETURNS TABLE(outcome text, user_id uuid, token_version integer)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.search_messages(searcher uuid, asked_text text, before_at timestamp with time zone, before_prompt uuid, before_position bigint, wanted integer) RETURNS TABLE(matches boolean, id text, chatroom_id uuid, prompt_id uuid, "position" bigint, role text, content text, created_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RAISE EXCEPTION 'this search is no more; replace the process by one of the current release'
        USING ERRCODE = 'operator_intervention';
END
$$;

CREATE TABLE public.billing_creations (
    user_id uuid NOT NULL,
    what text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failed boolean DEFAULT false NOT NULL,
    begun_at timestamp with time zone DEFAULT now() NOT NULL,
    asked_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT billing_creations_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT billing_creations_what_check CHECK ((what = ANY (ARRAY['customer'::text, 'checkout'::text])))
);

COMMENT ON TABLE public.billing_creations IS 'Customers and Checkout sessions that are being made at Stripe. A row goes once what it is about is stored.';

COMMENT ON COLUMN public.billing_creations.attempt IS 'Part of the idempotency key, under which Stripe keeps a failure for a day.';

COMMENT ON COLUMN public.billing_creations.failed IS 'Whether Stripe keeps a failure under the key of this attempt.';

COMMENT ON COLUMN public.billing_creations.begun_at IS 'When this attempt was first asked for.';

COMMENT ON COLUMN public.billing_creations.asked_at IS 'When it was last asked for.';

CREATE TABLE public.billing_customers (
    id text NOT NULL,
    user_id uuid,
    checkout_session_id text,
    returned_at timestamp with time zone,
    sync_at timestamp with time zone,
    reconciling boolean DEFAULT false NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    fence bigint DEFAULT 0 NOT NULL,
    lease_until timestamp with time zone,
    synced_at timestamp with time zone,
    gone_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT billing_customers_failures_check CHECK ((failures >= 0))
);

COMMENT ON TABLE public.billing_customers IS 'The Stripe customer of a user; only this says whose subscriptions those are.';

COMMENT ON COLUMN public.billing_customers.user_id IS 'Null once the user is deleted: then the customer is to be closed.';

COMMENT ON COLUMN public.billing_customers.checkout_session_id IS 'The newest Checkout session, open or not.';

COMMENT ON COLUMN public.billing_customers.returned_at IS 'When somebody last came back from that session and so caused a sync.';

COMMENT ON COLUMN public.billing_customers.sync_at IS 'When to fetch the subscriptions again; null: nothing says that they changed.';

COMMENT ON COLUMN public.billing_customers.reconciling IS 'Whether the sync is due for its age alone, so that a change it finds is drift.';

COMMENT ON COLUMN public.billing_customers.failures IS 'Syncs that failed in a row.';

COMMENT ON COLUMN public.billing_customers.fence IS 'Raised by every sync; a write that carries an older fence changes nothing.';

COMMENT ON COLUMN public.billing_customers.synced_at IS 'When the fetch of what is stored began.';

COMMENT ON COLUMN public.billing_customers.gone_at IS 'When Stripe was found not to have it any more; the next checkout makes another.';

CREATE TABLE public.billing_events (
    id text NOT NULL,
    type text NOT NULL,
    customer_id text,
    status text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    error_code text,
    created_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT billing_events_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT billing_events_check CHECK (((status = 'pending'::text) = (finished_at IS NULL))),
    CONSTRAINT billing_events_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'processed'::text, 'ignored'::text, 'parked'::text])))
);

COMMENT ON TABLE public.billing_events IS 'The inbox of Stripe events. An event only says that a customer has changed, so its content is not kept.';

COMMENT ON COLUMN public.billing_events.attempts IS 'Syncs for it that failed for a reason that lasts; too many park it.';

COMMENT ON COLUMN public.billing_events.created_at IS 'When Stripe made it.';

CREATE TABLE public.billing_subscriptions (
    id text NOT NULL,
    customer_id text NOT NULL,
    status text NOT NULL,
    price_ids text[] NOT NULL,
    current_period_end timestamp with time zone,
    cancel_at timestamp with time zone,
    past_due_since timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    idle_price_ids text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT billing_subscriptions_check CHECK (((status = 'past_due'::text) = (past_due_since IS NOT NULL)))
);

COMMENT ON COLUMN public.billing_subscriptions.cancel_at IS 'When it ends, if it has been cancelled.';

COMMENT ON COLUMN public.billing_subscriptions.past_due_since IS 'When it was first seen to be past due; the grace counts from here.';

COMMENT ON COLUMN public.billing_subscriptions.idle_price_ids IS 'Those of its prices that entitle to nothing: their quantity is 0, or payment is not collected.';

CREATE TABLE public.chatrooms_messages (
    id text NOT NULL,
    chatroom_id uuid NOT NULL,
    prompt_id uuid NOT NULL,
    "position" bigint NOT NULL,
    role text NOT NULL,
    content text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    user_id uuid,
    CONSTRAINT chatrooms_messages_content_check CHECK ((content <> ''::text)),
    CONSTRAINT chatrooms_messages_role_check CHECK ((role = ANY (ARRAY['user'::text, 'assistant'::text])))
);

COMMENT ON COLUMN public.chatrooms_messages.id IS 'Gemini''s response id with _U for the prompt and _A for the answer.';

COMMENT ON COLUMN public.chatrooms_messages.user_id IS 'Whose room it is in; rooms do not change hands.';

CREATE TABLE public.chatrooms_metadata (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL,
    last_sequence bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT chatrooms_metadata_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100)))
);

COMMENT ON COLUMN public.chatrooms_metadata.last_sequence IS 'Place of the room''s newest prompt; taken under the row lock, so commit order is sequence order.';

CREATE TABLE public.code_failures (
    phone_key bytea NOT NULL,
    day date NOT NULL,
    known integer DEFAULT 0 NOT NULL,
    proven integer DEFAULT 0 NOT NULL,
    places bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    repeats integer DEFAULT 0 NOT NULL,
    CONSTRAINT code_failures_known_check CHECK ((known >= 0)),
    CONSTRAINT code_failures_proven_check CHECK ((proven >= 0)),
    CONSTRAINT code_failures_repeats_check CHECK ((repeats >= 0))
);

COMMENT ON TABLE public.code_failures IS 'Wrong codes of a phone on a UTC day, of every purpose, by where they came from.';

COMMENT ON COLUMN public.code_failures.known IS 'From known places.';

COMMENT ON COLUMN public.code_failures.proven IS 'From where the login code had been asked for with the password.';

COMMENT ON COLUMN public.code_failures.places IS 'From elsewhere: each place for its first wrong code.';

COMMENT ON COLUMN public.code_failures.repeats IS 'From elsewhere: the second and later wrong codes of places.';

CREATE TABLE public.known_places (
    user_id uuid NOT NULL,
    place bytea NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.known_places IS 'Where codes of a user have been redeemed; what strangers do elsewhere never counts there.';

COMMENT ON COLUMN public.known_places.place IS 'An HMAC of the client''s address.';

CREATE TABLE public.leaders (
    name text NOT NULL,
    holder text NOT NULL,
    until timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.leaders IS 'Which process does what only one is to do, and until when it does without asking again.';

CREATE TABLE public.login_failures (
    phone_key bytea NOT NULL,
    failures integer NOT NULL,
    failed_at timestamp with time zone NOT NULL,
    places bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    repeats integer DEFAULT 0 NOT NULL,
    CONSTRAINT login_failures_failures_check CHECK ((failures >= 0))
);

COMMENT ON TABLE public.login_failures IS 'Wrong passwords of the last minutes, by where they came from; enough of them lock there, or everywhere strange.';

COMMENT ON COLUMN public.login_failures.phone_key IS 'The HMAC of a phone, or of the session that asked for the password again.';

COMMENT ON COLUMN public.login_failures.failures IS 'From known places, or of the session.';

COMMENT ON COLUMN public.login_failures.failed_at IS 'When the first of them came.';

COMMENT ON COLUMN public.login_failures.places IS 'From elsewhere: each place for its first wrong password.';

COMMENT ON COLUMN public.login_failures.repeats IS 'From elsewhere: the second and later wrong passwords of places.';

CREATE TABLE public.otp_challenges (
    phone_key bytea NOT NULL,
    purpose text NOT NULL,
    user_id uuid,
    token_version integer,
    code_hmac bytea NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    failures_on date DEFAULT ((now() AT TIME ZONE 'UTC'::text))::date NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    asked_from bytea,
    strange_attempts integer DEFAULT 0 NOT NULL,
    renewals integer DEFAULT 0 NOT NULL,
    CONSTRAINT otp_challenges_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT otp_challenges_check CHECK (((user_id IS NULL) = (token_version IS NULL))),
    CONSTRAINT otp_challenges_failures_check CHECK ((failures >= 0)),
    CONSTRAINT otp_challenges_purpose_check CHECK ((purpose = ANY (ARRAY['login'::text, 'reset'::text, 'login_known'::text, 'reset_known'::text])))
);

COMMENT ON TABLE public.otp_challenges IS 'The newest code of a phone for a purpose, and apart from it the newest that was asked for from a known place.';

COMMENT ON COLUMN public.otp_challenges.user_id IS 'Whose code it is; null for a phone nobody has. No foreign key: its check would tell the two apart by time.';

COMMENT ON COLUMN public.otp_challenges.token_version IS 'The user''s token version when the code was made: whatever ends the sessions of a user kills the codes as well.';

COMMENT ON COLUMN public.otp_challenges.attempts IS 'Tries from known places, and from where a login code had been asked for.';

COMMENT ON COLUMN public.otp_challenges.failures IS 'Of releases before schema version 7; code_failures counts since.';

COMMENT ON COLUMN public.otp_challenges.asked_from IS 'The place that asked for it.';

COMMENT ON COLUMN public.otp_challenges.strange_attempts IS 'Tries from everywhere else.';

COMMENT ON COLUMN public.otp_challenges.renewals IS 'Codes asked for one after another without one being used.';

CREATE TABLE public.phone_usage (
    phone_key bytea NOT NULL,
    day date NOT NULL,
    used integer NOT NULL,
    forgiven integer NOT NULL,
    CONSTRAINT phone_usage_forgiven_check CHECK ((forgiven >= 0)),
    CONSTRAINT phone_usage_used_check CHECK ((used >= 0))
);

COMMENT ON TABLE public.phone_usage IS 'What deleted accounts used, for the next account of the phone; worth nothing once the UTC day is over.';

COMMENT ON COLUMN public.phone_usage.phone_key IS 'HMAC of the phone, under a key that the database does not have.';

CREATE TABLE public.prompt_usage (
    user_id uuid NOT NULL,
    day date NOT NULL,
    used integer NOT NULL,
    forgiven integer DEFAULT 0 NOT NULL,
    CONSTRAINT prompt_usage_used_check CHECK ((used >= 0))
);

COMMENT ON TABLE public.prompt_usage IS 'Accepted less refunded prompts of a user on a UTC day.';

COMMENT ON COLUMN public.prompt_usage.forgiven IS 'How many were refunded although their prompts may have brought the failure about; these refunds end somewhere.';

CREATE TABLE public.prompts (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    chatroom_id uuid NOT NULL,
    sequence bigint NOT NULL,
    content text NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    available_at timestamp with time zone DEFAULT now() NOT NULL,
    fence bigint DEFAULT 0 NOT NULL,
    lease_until timestamp with time zone,
    leased_by text,
    takeovers integer DEFAULT 0 NOT NULL,
    error_code text,
    error_message text,
    prompt_tokens integer,
    reply_tokens integer,
    charged_on date,
    idempotency_key text,
    request_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    traceparent text,
    regenerates uuid,
    CONSTRAINT prompts_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT prompts_check CHECK (((status = 'running'::text) = (lease_until IS NOT NULL))),
    CONSTRAINT prompts_check1 CHECK (((status = ANY (ARRAY['queued'::text, 'running'::text])) = (finished_at IS NULL))),
    CONSTRAINT prompts_check2 CHECK (((status = 'failed'::text) = (error_code IS NOT NULL))),
    CONSTRAINT prompts_content_check CHECK ((content <> ''::text)),
    CONSTRAINT prompts_idempotency_key_check CHECK (((char_length(idempotency_key) >= 1) AND (char_length(idempotency_key) <= 255))),
    CONSTRAINT prompts_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'running'::text, 'answered'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT prompts_traceparent_check CHECK ((char_length(traceparent) <= 55))
);

COMMENT ON COLUMN public.prompts.fence IS 'Raised by every claim; a write that carries an older fence changes nothing.';

COMMENT ON COLUMN public.prompts.takeovers IS 'How often its lease ran out: each time its process may have died of it.';

COMMENT ON COLUMN public.prompts.charged_on IS 'UTC day whose quota is charged; null once it was given back, and of a prompt that was put back by hand.';

COMMENT ON COLUMN public.prompts.traceparent IS 'W3C trace context of the request that sent it, when traces are on.';

COMMENT ON COLUMN public.prompts.regenerates IS 'The first prompt of those that ask the same again; their exchanges are not history to each other.';

CREATE TABLE public.schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    compatible_from integer
);

CREATE TABLE public.search_purges (
    chatroom_id uuid NOT NULL,
    user_id uuid NOT NULL,
    queued_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.search_purges IS 'Rooms that are no more, and whose words are still to be taken out of search_shelves.';

CREATE TABLE public.search_queue (
    user_id uuid NOT NULL,
    prompt_id uuid NOT NULL,
    said_at timestamp with time zone NOT NULL,
    queued_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

COMMENT ON TABLE public.search_queue IS 'Prompts whose messages are not in the search yet; written by whoever writes the messages.';

COMMENT ON COLUMN public.search_queue.said_at IS 'When the newest of the messages was made: those that were said last are searched first.';

CREATE TABLE public.search_recent (
    chatroom_id uuid NOT NULL,
    "position" bigint NOT NULL,
    user_id uuid NOT NULL,
    prompt_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    size integer NOT NULL,
    words text NOT NULL COLLATE pg_catalog."C"
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE public.search_recent IS 'The newest messages of each user as they are searched, few enough to be looked through.';

COMMENT ON COLUMN public.search_recent.size IS 'Bytes of the message itself.';

COMMENT ON COLUMN public.search_recent.words IS 'The words of the message, a blank before and behind each: messages/search_text.py.';

CREATE TABLE public.search_shelves (
    id bigint NOT NULL,
    user_id uuid NOT NULL,
    oldest timestamp with time zone NOT NULL,
    newest timestamp with time zone NOT NULL,
    weight integer NOT NULL,
    rooms uuid[] NOT NULL,
    positions bigint[] NOT NULL,
    prompts uuid[] NOT NULL,
    times timestamp with time zone[] NOT NULL,
    sizes integer[] NOT NULL,
    words text[] NOT NULL COLLATE pg_catalog."C",
    lexicon text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE public.search_shelves IS 'Older messages of a user as they are searched, many in a row, an element of each array for each message.';

COMMENT ON COLUMN public.search_shelves.weight IS 'Bytes of all the words.';

COMMENT ON COLUMN public.search_shelves.lexicon IS 'Each word that occurs, once: what is not here need not be looked for in the words.';

ALTER TABLE public.search_shelves ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.search_shelves_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.users (
    id uuid NOT NULL,
    phone text NOT NULL,
    password_hash text NOT NULL,
    name text,
    subscription_tier text DEFAULT 'Basic'::text NOT NULL,
    pro_until timestamp with time zone,
    token_version integer DEFAULT 0 NOT NULL,
    verified_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT users_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT users_phone_check CHECK ((phone ~ '^\+[1-9][0-9]{7,14}$'::text)),
    CONSTRAINT users_subscription_tier_check CHECK ((subscription_tier = ANY (ARRAY['Basic'::text, 'Pro'::text])))
);

COMMENT ON COLUMN public.users.pro_until IS 'When Pro ends by itself; null: never. Whoever reads the tier reads current_tier.';

ALTER TABLE ONLY public.billing_creations
    ADD CONSTRAINT billing_creations_pkey PRIMARY KEY (user_id, what);

ALTER TABLE ONLY public.billing_customers
    ADD CONSTRAINT billing_customers_checkout_session_id_key UNIQUE (checkout_session_id);

ALTER TABLE ONLY public.billing_customers
    ADD CONSTRAINT billing_customers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.billing_customers
    ADD CONSTRAINT billing_customers_user_id_key UNIQUE (user_id);

ALTER TABLE ONLY public.billing_events
    ADD CONSTRAINT billing_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.billing_subscriptions
    ADD CONSTRAINT billing_subscriptions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.chatrooms_messages
    ADD CONSTRAINT chatrooms_messages_chatroom_id_position_key UNIQUE (chatroom_id, "position");

ALTER TABLE ONLY public.chatrooms_messages
    ADD CONSTRAINT chatrooms_messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.chatrooms_messages
    ADD CONSTRAINT chatrooms_messages_prompt_id_role_key UNIQUE (prompt_id, role);

ALTER TABLE ONLY public.chatrooms_metadata
    ADD CONSTRAINT chatrooms_metadata_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.code_failures
    ADD CONSTRAINT code_failures_pkey PRIMARY KEY (phone_key);

ALTER TABLE ONLY public.known_places
    ADD CONSTRAINT known_places_pkey PRIMARY KEY (user_id, place);

ALTER TABLE ONLY public.leaders
    ADD CONSTRAINT leaders_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.login_failures
    ADD CONSTRAINT login_failures_pkey PRIMARY KEY (phone_key);

ALTER TABLE ONLY public.otp_challenges
    ADD CONSTRAINT otp_challenges_pkey PRIMARY KEY (phone_key, purpose);

ALTER TABLE ONLY public.phone_usage
    ADD CONSTRAINT phone_usage_pkey PRIMARY KEY (phone_key, day);

ALTER TABLE ONLY public.prompt_usage
    ADD CONSTRAINT prompt_usage_pkey PRIMARY KEY (user_id, day);

ALTER TABLE ONLY public.prompts
    ADD CONSTRAINT prompts_chatroom_id_sequence_key UNIQUE (chatroom_id, sequence);

ALTER TABLE ONLY public.prompts
    ADD CONSTRAINT prompts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.search_purges
    ADD CONSTRAINT search_purges_pkey PRIMARY KEY (chatroom_id);

ALTER TABLE ONLY public.search_queue
    ADD CONSTRAINT search_queue_pkey PRIMARY KEY (user_id, prompt_id);

ALTER TABLE ONLY public.search_recent
    ADD CONSTRAINT search_recent_pkey PRIMARY KEY (chatroom_id, "position");

ALTER TABLE ONLY public.search_shelves
    ADD CONSTRAINT search_shelves_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_phone_key UNIQUE (phone);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

CREATE INDEX billing_customers_due ON public.billing_customers USING btree (sync_at) WHERE ((sync_at IS NOT NULL) OR (lease_until IS NOT NULL) OR (user_id IS NULL));

CREATE INDEX billing_events_done ON public.billing_events USING btree (finished_at) WHERE (status = ANY (ARRAY['processed'::text, 'ignored'::text]));

CREATE INDEX billing_events_parked ON public.billing_events USING btree (finished_at DESC) WHERE (status = 'parked'::text);

CREATE INDEX billing_events_pending ON public.billing_events USING btree (customer_id, received_at) WHERE (status = 'pending'::text);

CREATE INDEX billing_subscriptions_of_customer ON public.billing_subscriptions USING btree (customer_id);

CREATE INDEX chatrooms_of_user ON public.chatrooms_metadata USING btree (user_id, id DESC);

CREATE INDEX code_failures_stale ON public.code_failures USING btree (day);

CREATE INDEX known_places_stale ON public.known_places USING btree (seen_at);

CREATE INDEX login_failures_stale ON public.login_failures USING btree (failed_at);

CREATE INDEX otp_challenges_stale ON public.otp_challenges USING btree (expires_at);

CREATE INDEX phone_usage_over ON public.phone_usage USING btree (day);

CREATE INDEX prompts_failed ON public.prompts USING btree (finished_at DESC) WHERE (status = 'failed'::text);

CREATE UNIQUE INDEX prompts_idempotency ON public.prompts USING btree (user_id, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX prompts_leases ON public.prompts USING btree (lease_until) WHERE (status = 'running'::text);

CREATE INDEX prompts_of_user ON public.prompts USING btree (user_id);

CREATE UNIQUE INDEX prompts_running ON public.prompts USING btree (chatroom_id) WHERE (status = 'running'::text);

CREATE INDEX prompts_unfinished ON public.prompts USING btree (chatroom_id, sequence) WHERE (status = ANY (ARRAY['queued'::text, 'running'::text]));

CREATE INDEX prompts_waiting ON public.prompts USING btree (available_at, id) WHERE (status = 'queued'::text);

CREATE INDEX search_queue_newest ON public.search_queue USING btree (said_at DESC);

CREATE INDEX search_recent_of_user ON public.search_recent USING btree (user_id, created_at DESC);

CREATE INDEX search_shelves_of_user ON public.search_shelves USING btree (user_id, newest DESC, id DESC);

CREATE INDEX users_unverified ON public.users USING btree (created_at) WHERE (verified_at IS NULL);

CREATE TRIGGER chatrooms_messages_owner BEFORE INSERT ON public.chatrooms_messages FOR EACH ROW WHEN ((new.user_id IS NULL)) EXECUTE FUNCTION public.name_message_owner();

CREATE TRIGGER chatrooms_messages_search AFTER INSERT ON public.chatrooms_messages REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.queue_for_search();

CREATE TRIGGER chatrooms_metadata_search AFTER DELETE ON public.chatrooms_metadata FOR EACH ROW EXECUTE FUNCTION public.queue_search_purge();

ALTER TABLE ONLY public.billing_creations
    ADD CONSTRAINT billing_creations_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.billing_customers
    ADD CONSTRAINT billing_customers_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.billing_subscriptions
    ADD CONSTRAINT billing_subscriptions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.billing_customers(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.chatrooms_messages
    ADD CONSTRAINT chatrooms_messages_chatroom_id_fkey FOREIGN KEY (chatroom_id) REFERENCES public.chatrooms_metadata(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.chatrooms_messages
    ADD CONSTRAINT chatrooms_messages_prompt_id_fkey FOREIGN KEY (prompt_id) REFERENCES public.prompts(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.chatrooms_metadata
    ADD CONSTRAINT chatrooms_metadata_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.known_places
    ADD CONSTRAINT known_places_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.prompt_usage
    ADD CONSTRAINT prompt_usage_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.prompts
    ADD CONSTRAINT prompts_chatroom_id_fkey FOREIGN KEY (chatroom_id) REFERENCES public.chatrooms_metadata(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.prompts
    ADD CONSTRAINT prompts_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.search_recent
    ADD CONSTRAINT search_recent_chatroom_id_fkey FOREIGN KEY (chatroom_id) REFERENCES public.chatrooms_metadata(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.search_shelves
    ADD CONSTRAINT search_shelves_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
