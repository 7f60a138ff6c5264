-- Full-text search over a user's own messages.
--
-- This step is not one transaction, because an index that is built while messages go on being written cannot be part of
-- one. Each of its parts may be run again, and the release before can live with each of them.

SET statement_timeout = 0;

BEGIN;

-- It waits behind long transactions (a backup), and everybody waits behind it: better to give up and be run again.
SET LOCAL lock_timeout = '5s';

ALTER TABLE chatrooms_messages ADD COLUMN IF NOT EXISTS user_id uuid;
COMMENT ON COLUMN chatrooms_messages.user_id IS 'Whose room it is in; rooms do not change hands.';

-- Releases before schema version 5 do not name the owner. To be removed in a later release.
CREATE OR REPLACE FUNCTION name_message_owner() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    SELECT r.user_id INTO NEW.user_id FROM chatrooms_metadata r WHERE r.id = NEW.chatroom_id;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER chatrooms_messages_owner BEFORE INSERT ON chatrooms_messages
    FOR EACH ROW WHEN (NEW.user_id IS NULL) EXECUTE FUNCTION name_message_owner();

-- The week of a moment, counted from 2024; what is older counts as the first of them.
CREATE OR REPLACE FUNCTION search_week(moment timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(0, floor(extract(epoch FROM moment AT TIME ZONE 'UTC' - timestamp '2024-01-01') / 604800)::integer);

-- A word that no text has, because it has a blank, for all messages of a user in a week.
CREATE OR REPLACE FUNCTION search_owner(user_id uuid, week integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'owner ' || user_id::text || ' ' || week::text;

-- A text with blanks for the punctuation outside ASCII, which PostgreSQL takes for letters in a database whose locale is C.
CREATE OR REPLACE FUNCTION search_text(content text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(
    content, '[\u00A0-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u2000-\u206F\u3000-\u303F\uFF00-\uFF0F\uFF1A-\uFF20]',
    ' ', 'g'
);

-- What is indexed of a message. A text of 65,536 characters makes a tsvector that is never too large to be one.
CREATE OR REPLACE FUNCTION search_words(user_id uuid, created_at timestamptz, content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN array_to_tsvector(ARRAY[search_owner(user_id, search_week(created_at))])
       || to_tsvector('simple'::regconfig, search_text(left(content, 65536)));

-- A user's messages that a text asks for (websearch_to_tsquery), newest first, older than the given key.
--
-- The owner and the week are a word like any other, so the index intersects it with what is asked and what is others'
-- is never looked at; going back week by week, it stops with the newest `wanted`. The work is bounded: a last row that
-- does not match has the key from which to go on.
CREATE OR REPLACE FUNCTION search_messages(
    searcher uuid, asked_text text, before_at timestamptz, before_prompt uuid, before_position bigint, wanted integer
) RETURNS TABLE (
    matches boolean, id text, chatroom_id uuid, prompt_id uuid, "position" bigint, role text, content text,
    created_at timestamptz
)
LANGUAGE plpgsql STABLE
SET work_mem = '32MB' -- a bitmap that is exact: an inexact one has every message near a hit parsed
SET plan_cache_mode = force_generic_plan -- planned once, not week by week
SET enable_seqscan = off
AS $$
DECLARE
    -- Quotation marks may be those that phones type.
    quoted constant text := translate(asked_text, U&'\201C\201D\201E\00AB\00BB', '"""""');
    asked constant tsquery := websearch_to_tsquery('simple', search_text(quoted));
    -- A phrase is more than the index knows: it finds the words, and the text itself is looked at afterwards.
    phrased constant boolean := asked::text ~ '<(-|[0-9]+)>';
    candidates constant tsquery := CASE WHEN phrased
        THEN regexp_replace(nullif(querytree(asked), 'T'), '<(-|[0-9]+)>', '&', 'g')::tsquery ELSE asked END;
    most constant integer := 2000;
    deadline constant timestamptz := clock_timestamp() + interval '0.5 s';
    pause timestamptz;
    week integer := search_week(least(before_at, now() + interval '7 days'));
    mine tsquery;
    looked_at integer;
    candidate record;
BEGIN
    IF numnode(asked) = 0 THEN
        RETURN;
    END IF;
    LOOP
        mine := quote_literal(search_owner(searcher, week))::tsquery;
        looked_at := 0;
        FOR candidate IN
            SELECT m.id, m.created_at, m.prompt_id, m.position FROM chatrooms_messages m
            WHERE search_words(m.user_id, m.created_at, m.content) @@ coalesce(mine && candidates, mine)
              AND m.user_id = searcher
              AND (before_at IS NULL
                   OR (m.created_at, m.prompt_id, m.position) < (before_at, before_prompt, before_position))
            ORDER BY m.created_at DESC, m.prompt_id DESC, m.position DESC LIMIT most
        LOOP
            IF looked_at = 0 THEN
                pause := greatest(deadline, clock_timestamp() + interval '0.2 s');
            END IF;
            looked_at := looked_at + 1;
            RETURN QUERY SELECT true, m.id, m.chatroom_id, m.prompt_id, m.position, m.role, m.content, m.created_at
            FROM chatrooms_messages m
            WHERE m.id = candidate.id
              AND (NOT phrased OR search_words(m.user_id, m.created_at, m.content) @@ asked);
            IF FOUND THEN
                wanted := wanted - 1;
                IF wanted = 0 THEN
                    RETURN;
                END IF;
            END IF;
            IF looked_at = most OR (phrased AND clock_timestamp() > pause) THEN
                RETURN QUERY SELECT false, candidate.id, NULL::uuid, candidate.prompt_id, candidate.position,
                                    NULL::text, NULL::text, candidate.created_at;
                RETURN;
            END IF;
        END LOOP;
        IF week = 0 THEN
            RETURN;
        END IF;
        IF clock_timestamp() > deadline THEN
            -- The last moment of the week before.
            RETURN QUERY SELECT false, NULL::text, NULL::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid, 0::bigint,
                                NULL::text, NULL::text,
                                timestamptz '2024-01-01 UTC' + week * interval '168 hours' - interval '1 microsecond';
            RETURN;
        END IF;
        week := week - 1;
    END LOOP;
END
$$;

COMMIT;

-- Messages of before get their owner, some pages in a transaction. Rows that somebody is deleting just now are left
-- for another round, so that nobody waits for this in a circle.
DO $$
DECLARE
    pages constant bigint := 256;
    page bigint;
BEGIN
    WHILE EXISTS (SELECT FROM chatrooms_messages WHERE user_id IS NULL) LOOP
        page := 0;
        WHILE page * current_setting('block_size')::bigint < pg_relation_size('chatrooms_messages') LOOP
            UPDATE chatrooms_messages m SET user_id = r.user_id
            FROM chatrooms_metadata r
            WHERE r.id = m.chatroom_id AND m.ctid = ANY (ARRAY(
                SELECT ctid FROM chatrooms_messages
                WHERE ctid >= format('(%s,0)', page)::tid AND ctid < format('(%s,0)', page + pages)::tid
                  AND user_id IS NULL
                FOR UPDATE SKIP LOCKED
            ));
            COMMIT;
            page := page + pages;
        END LOOP;
        COMMIT;
    END LOOP;
END
$$;

-- It waits for transactions that are older than it, a backup for example, and holds nobody up meanwhile.
SET lock_timeout = 0;

-- A build that was broken off leaves an index that is written and never read.
SELECT EXISTS (
    SELECT FROM pg_index WHERE indexrelid = to_regclass('chatrooms_messages_search') AND NOT indisvalid
) AS broken \gset
\if :broken
    DROP INDEX CONCURRENTLY chatrooms_messages_search;
\endif

-- New entries wait in a list, which a process of the service merges every second. If none does, whoever fills the list
-- has to, so it must not be long.
CREATE INDEX CONCURRENTLY IF NOT EXISTS chatrooms_messages_search
    ON chatrooms_messages USING gin (search_words(user_id, created_at, content))
    WITH (gin_pending_list_limit = 1024);
