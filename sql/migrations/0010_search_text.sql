-- Search leaves the commit of answers: a message is queued for it, and a moment later an actor of the service makes
-- of its text what is searched.
--
-- This step is not one transaction: the old index goes without holding anybody up, and the messages of before are queued
-- while others are written. Each of its parts may be run again, and the release before can live with each of them, but
-- for its searches, which are 503 until its processes are replaced.

SET statement_timeout = 0;

BEGIN;

SET LOCAL lock_timeout = '5s';

CREATE TABLE IF NOT EXISTS search_queue (
    user_id   uuid NOT NULL,
    prompt_id uuid NOT NULL,
    said_at   timestamptz NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, prompt_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE search_queue IS 'Prompts whose messages are not in the search yet; written by whoever writes the messages.';
COMMENT ON COLUMN search_queue.said_at IS 'When the newest of the messages was made: those that were said last are searched first.';
CREATE INDEX IF NOT EXISTS search_queue_newest ON search_queue (said_at DESC);

CREATE TABLE IF NOT EXISTS search_purges (
    chatroom_id uuid PRIMARY KEY,
    user_id     uuid NOT NULL,
    queued_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE search_purges IS 'Rooms that are no more, and whose words are still to be taken out of search_shelves.';

CREATE TABLE IF NOT EXISTS search_recent (
    chatroom_id uuid NOT NULL REFERENCES chatrooms_metadata (id) ON DELETE CASCADE,
    position    bigint NOT NULL,
    user_id     uuid NOT NULL,
    prompt_id   uuid NOT NULL,
    created_at  timestamptz NOT NULL,
    size        integer NOT NULL,
    words       text COLLATE "C" NOT NULL,
    PRIMARY KEY (chatroom_id, position)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE search_recent IS 'The newest messages of each user as they are searched, few enough to be looked through.';
COMMENT ON COLUMN search_recent.size IS 'Bytes of the message itself.';
COMMENT ON COLUMN search_recent.words IS 'The words of the message, a blank before and behind each: messages/search_text.py.';
CREATE INDEX IF NOT EXISTS search_recent_of_user ON search_recent (user_id, created_at DESC);

CREATE TABLE IF NOT EXISTS search_shelves (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    oldest    timestamptz NOT NULL,
    newest    timestamptz NOT NULL,
    weight    integer NOT NULL,
    rooms     uuid[] NOT NULL,
    positions bigint[] NOT NULL,
    prompts   uuid[] NOT NULL,
    times     timestamptz[] NOT NULL,
    sizes     integer[] NOT NULL,
    words     text[] COLLATE "C" NOT NULL,
    lexicon   text COLLATE "C" NOT NULL
);
COMMENT ON TABLE search_shelves IS 'Older messages of a user as they are searched, many in a row, an element of each array for each message.';
COMMENT ON COLUMN search_shelves.weight IS 'Bytes of all the words.';
COMMENT ON COLUMN search_shelves.lexicon IS 'Each word that occurs, once: what is not here need not be looked for in the words.';
CREATE INDEX IF NOT EXISTS search_shelves_of_user ON search_shelves (user_id, newest DESC, id DESC);

CREATE OR REPLACE FUNCTION queue_for_search() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_queue (user_id, prompt_id, said_at)
    SELECT user_id, prompt_id, max(created_at) FROM added GROUP BY user_id, prompt_id
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chatrooms_messages_search AFTER INSERT ON chatrooms_messages
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION queue_for_search();

CREATE OR REPLACE FUNCTION queue_search_purge() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_purges (chatroom_id, user_id) VALUES (OLD.id, OLD.user_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER chatrooms_metadata_search AFTER DELETE ON chatrooms_metadata
    FOR EACH ROW EXECUTE FUNCTION queue_search_purge();

-- The search of releases before schema version 10, which cannot be answered without its index: an outage to them, so
-- that their users are told to ask again. To be removed in a later release.
CREATE OR REPLACE FUNCTION search_messages(
    searcher uuid, asked_text text, before_at timestamptz, before_prompt uuid, before_position bigint, wanted integer
) RETURNS TABLE (
    matches boolean, id text, chatroom_id uuid, prompt_id uuid, "position" bigint, role text, content text,
    created_at timestamptz
)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION 'this search is no more; replace the process by one of the current release'
        USING ERRCODE = 'operator_intervention';
END
$$;
ALTER FUNCTION search_messages RESET ALL;

COMMIT;

-- The messages of before. Those that are written meanwhile queue themselves.
INSERT INTO search_queue (user_id, prompt_id, said_at)
SELECT user_id, prompt_id, max(created_at) FROM chatrooms_messages GROUP BY user_id, prompt_id
ON CONFLICT DO NOTHING;

-- It waits for transactions that are older than it, a backup for example, and holds nobody up meanwhile.
SET lock_timeout = 0;

DROP INDEX CONCURRENTLY IF EXISTS chatrooms_messages_search;

DROP FUNCTION IF EXISTS search_words(uuid, timestamptz, text);
DROP FUNCTION IF EXISTS search_text(text);
DROP FUNCTION IF EXISTS search_owner(uuid, integer);
DROP FUNCTION IF EXISTS search_week(timestamptz);
