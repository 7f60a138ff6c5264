-- Where a prompt came from: the trace of the request that sent it, and the prompt that it asks once more.

ALTER TABLE prompts
    ADD COLUMN traceparent text CHECK (char_length(traceparent) <= 55),
    ADD COLUMN regenerates uuid;

COMMENT ON COLUMN prompts.traceparent IS 'W3C trace context of the request that sent it, when traces are on.';
COMMENT ON COLUMN prompts.regenerates IS
    'The first prompt of those that ask the same again; their exchanges are not history to each other.';

-- The new parameters have defaults, so a process of the version before goes on calling it as it did.
DROP FUNCTION accept_prompts(uuid[], uuid[], uuid[], text[], text[], text[], integer, integer);

-- Accepts a batch of prompts: ownership, idempotency, the room's bound, quota and sequence, decided item by item
-- in the order given and answered in the same order. Outcomes: accepted, replayed, key_reused, not_found,
-- room_busy, daily_limit_reached. Every other outcome than accepted leaves nothing behind.
CREATE FUNCTION accept_prompts(
    prompt_ids uuid[], user_ids uuid[], chatroom_ids uuid[], contents text[], idempotency_keys text[],
    request_ids text[], basic_daily_prompts integer, room_limit integer,
    traceparents text[] DEFAULT NULL, regenerated_ids uuid[] DEFAULT NULL
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

        outcome := 'accepted';
        prompt_id := item.id;
        accepted_at := now();
        RETURN NEXT;
    END LOOP;
END
$$;
