-- Users, chatrooms, messages, prompts and the daily quota.
-- Every id is a UUIDv7 made by the service; times are UTC by type.

CREATE TABLE users (
    id                uuid PRIMARY KEY,
    phone             text NOT NULL UNIQUE CHECK (phone ~ '^\+[1-9][0-9]{7,14}$'),
    password_hash     text NOT NULL,
    name              text CHECK (char_length(name) BETWEEN 1 AND 100),
    subscription_tier text NOT NULL DEFAULT 'Basic' CHECK (subscription_tier IN ('Basic', 'Pro')),
    pro_until         timestamptz,
    token_version     integer NOT NULL DEFAULT 0,
    verified_at       timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN users.pro_until IS 'When Pro ends by itself; null: never. Whoever reads the tier reads current_tier.';

-- The tier at this moment: Pro ends when its time is over, whether or not anybody notices.
CREATE FUNCTION current_tier(subscription_tier text, pro_until timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN subscription_tier = 'Pro' AND (pro_until IS NULL OR pro_until > now()) THEN 'Pro' ELSE 'Basic' END;

CREATE TABLE chatrooms_metadata (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name          text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    last_sequence bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX chatrooms_of_user ON chatrooms_metadata (user_id, id DESC);

COMMENT ON COLUMN chatrooms_metadata.last_sequence IS
    'Place of the room''s newest prompt; taken under the row lock, so commit order is sequence order.';

CREATE TABLE prompts (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    chatroom_id     uuid NOT NULL REFERENCES chatrooms_metadata ON DELETE CASCADE,
    sequence        bigint NOT NULL,
    content         text NOT NULL CHECK (content <> ''),
    status          text NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'running', 'answered', 'failed', 'cancelled')),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    available_at    timestamptz NOT NULL DEFAULT now(),
    fence           bigint NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    leased_by       text,
    takeovers       integer NOT NULL DEFAULT 0,
    error_code      text,
    error_message   text,
    prompt_tokens   integer,
    reply_tokens    integer,
    charged_on      date,
    idempotency_key text CHECK (char_length(idempotency_key) BETWEEN 1 AND 255),
    request_id      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    UNIQUE (chatroom_id, sequence),
    CHECK ((status = 'running') = (lease_until IS NOT NULL)),
    CHECK ((status IN ('queued', 'running')) = (finished_at IS NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL))
);

-- A room never has two prompts running.
CREATE UNIQUE INDEX prompts_running ON prompts (chatroom_id) WHERE status = 'running';
-- One prompt for an idempotency key.
CREATE UNIQUE INDEX prompts_idempotency ON prompts (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- The head of a room, and how many prompts it has unfinished.
CREATE INDEX prompts_unfinished ON prompts (chatroom_id, sequence) WHERE status IN ('queued', 'running');
-- What the sweeper looks for.
CREATE INDEX prompts_due ON prompts (available_at) WHERE status = 'queued';
CREATE INDEX prompts_leases ON prompts (lease_until) WHERE status = 'running';
-- Dead letters, newest first.
CREATE INDEX prompts_failed ON prompts (finished_at DESC) WHERE status = 'failed';
CREATE INDEX prompts_of_user ON prompts (user_id);

COMMENT ON COLUMN prompts.fence IS 'Raised by every claim; a write that carries an older fence changes nothing.';
COMMENT ON COLUMN prompts.takeovers IS 'How often its lease ran out: each time its process may have died of it.';
COMMENT ON COLUMN prompts.charged_on IS 'UTC day whose quota was charged; given back when the prompt ends failed.';

CREATE TABLE chatrooms_messages (
    id          text PRIMARY KEY,
    chatroom_id uuid NOT NULL REFERENCES chatrooms_metadata ON DELETE CASCADE,
    prompt_id   uuid NOT NULL REFERENCES prompts ON DELETE CASCADE,
    position    bigint NOT NULL,
    role        text NOT NULL CHECK (role IN ('user', 'assistant')),
    content     text NOT NULL CHECK (content <> ''),
    created_at  timestamptz NOT NULL,
    UNIQUE (chatroom_id, position),
    UNIQUE (prompt_id, role)
);

COMMENT ON COLUMN chatrooms_messages.id IS 'Gemini''s response id with _U for the prompt and _A for the answer.';

CREATE TABLE prompt_usage (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    day     date NOT NULL,
    used    integer NOT NULL CHECK (used >= 0),
    PRIMARY KEY (user_id, day)
);

COMMENT ON TABLE prompt_usage IS 'Accepted less refunded prompts of a user on a UTC day.';

-- Accepts a batch of prompts: ownership, idempotency, the room's bound, quota and sequence, decided item by item
-- in the order given and answered in the same order. Outcomes: accepted, replayed, key_reused, not_found,
-- room_busy, daily_limit_reached. Every other outcome than accepted leaves nothing behind.
CREATE FUNCTION accept_prompts(
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
