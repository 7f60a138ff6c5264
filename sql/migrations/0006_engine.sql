-- The engine without Redis and under a burst: who leads, an order in which waiting prompts can be looked through, and a
-- bound on the backlog that is decided with everything else.
--
-- This step is not one transaction, because an index that is built while prompts go on being written cannot be part of
-- one. Each of its parts may be run again, and the release before can live with each of them.

SET statement_timeout = 0;

BEGIN;

SET LOCAL lock_timeout = '5s';

CREATE TABLE IF NOT EXISTS leaders (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);

COMMENT ON TABLE leaders IS 'Which process does what only one is to do, and until when it does without asking again.';

-- The new parameter has a default, so a process of the version before goes on calling it as it did.
DROP FUNCTION IF EXISTS accept_prompts(
    uuid[], uuid[], uuid[], text[], text[], text[], integer, integer, text[], uuid[]);

-- Accepts a batch of prompts: ownership, idempotency, the room's bound, quota and sequence, decided item by item
-- in the order given and answered in the same order. Outcomes: accepted, replayed, key_reused, not_found,
-- room_busy, backlog_full, daily_limit_reached. Every other outcome than accepted leaves nothing behind.
CREATE OR REPLACE FUNCTION accept_prompts(
    prompt_ids uuid[], user_ids uuid[], chatroom_ids uuid[], contents text[], idempotency_keys text[],
    request_ids text[], basic_daily_prompts integer, room_limit integer,
    traceparents text[] DEFAULT NULL, regenerated_ids uuid[] DEFAULT NULL, backlog_room integer DEFAULT NULL
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

COMMIT;

-- It waits for transactions that are older than it, a backup for example, and holds nobody up meanwhile.
SET lock_timeout = 0;

-- A build that was broken off leaves an index that is written and never read.
SELECT EXISTS (
    SELECT FROM pg_index WHERE indexrelid = to_regclass('prompts_waiting') AND NOT indisvalid
) AS broken \gset
\if :broken
    DROP INDEX CONCURRENTLY prompts_waiting;
\endif

-- What waits, in an order without ties, so that a search can go on where it ended.
CREATE INDEX CONCURRENTLY IF NOT EXISTS prompts_waiting ON prompts (available_at, id) WHERE status = 'queued';
DROP INDEX CONCURRENTLY IF EXISTS prompts_due;
