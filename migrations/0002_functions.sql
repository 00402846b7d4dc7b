-- Everything that changes a session goes through these functions. Each takes
-- the sessions' advisory locks before its transaction writes anything, nextval
-- included, and so before the transaction has an id: revision n+1 then always
-- carries a higher xid than revision n, which is what readers of the log rely
-- on. (Row locks do not give that: they are taken after the id.)
--
-- READ COMMITTED is required: the statement after the locks must see what the
-- previous holder of a lock committed.
--
-- Refusals are result rows, so that one bad save in a batch harms no other.
-- The functions are versioned by name; a later release adds save_sessions_v2
-- and leaves this one for servers that still run the previous release.

-- Takes the locks in key order (no deadlocks). Without p_wait a lock that is
-- held elsewhere is not waited for; the items that need it are returned.
CREATE FUNCTION lock_sessions_v1(p_lock_item integer[], p_lock_key bigint[], p_wait boolean)
RETURNS integer[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    busy integer[] := '{}';
    wanted record;
BEGIN
    FOR wanted IN
        SELECT l.item, l.key FROM unnest(p_lock_item, p_lock_key) AS l (item, key) ORDER BY l.key, l.item
    LOOP
        IF p_wait THEN
            PERFORM pg_advisory_xact_lock(wanted.key);
        ELSIF NOT pg_try_advisory_xact_lock(wanted.key) THEN
            busy := busy || wanted.item;
        END IF;
    END LOOP;
    RETURN busy;
END $$;

-- A segment before the last one of a save.
CREATE TYPE save_segment_v1 AS (
    first_message bigint,
    message_count integer,
    end_bytes bigint,
    raw_size integer,
    codec smallint,
    payload bytea,
    digest bytea,
    checksum integer
);

-- A big value of a save.
CREATE TYPE save_value_v1 AS (
    digest bytea,
    raw_size integer,
    codec smallint,
    payload bytea,
    checksum integer
);

-- One save. One array of these instead of an array for each column: every array
-- of an unnest() has a tuple store of its own.
CREATE TYPE save_item_v1 AS (
    bucket integer,
    tenant_id bigint,
    agent_id text,
    session_name text,
    server_named boolean,
    -- The head that the plan was made for: 0 and 0 if there was no session. The
    -- number alone would not tell a session from one that took its name.
    planned_session_id bigint,
    planned_head bigint,
    -- Of a delta: the revision it is based on; NULL for a snapshot.
    base_revision bigint,
    -- The base is not there, or is not the one that the caller means.
    base_missing boolean,
    expected_revision bigint,
    request_id uuid,
    fingerprint bytea,
    user_id text,
    client_id text,
    actor text,
    labels text,
    checkpoint_id text,
    metadata text,
    save_time timestamptz,
    uid uuid,
    event_id uuid,
    -- NULL: a new transcript, with the parent that follows.
    transcript_id bigint,
    parent_transcript_id bigint,
    parent_message_count bigint,
    parent_digest bytea,
    parent_bytes bigint,
    depth integer,
    transcript_length bigint,
    message_count bigint,
    message_bytes bigint,
    size_bytes bigint,
    digest bytea,
    state_digest bytea,
    state bytea,
    state_codec smallint,
    state_raw_size integer,
    value_digests bytea,
    value_names text,
    checksum integer,
    -- The segment that ends with the last message; NULL payload: none is written.
    last_count integer,
    last_raw_size integer,
    last_codec smallint,
    last_payload bytea,
    last_checksum integer,
    segments save_segment_v1[],
    new_values save_value_v1[],
    -- Overwrite values that are stored already (self_contained): heals damaged ones.
    repair boolean
);

-- Saves a batch: one item per session at most, numbered from 1. Most saves write
-- one segment, whose columns stand with the item.
--
-- status: 0 saved, 1 replayed, 2 request_id reused, 3 deleted, 4 revision
-- mismatch, 5 user mismatch, 6 checkpoint exists, 7 stale plan (the head is not
-- planned_head of planned_session_id: read it again), 8 name taken
-- (server-named), 9 busy, 10 base not found.
CREATE FUNCTION save_sessions_v1(
    p_wait boolean,
    p_lock_item integer[],
    p_lock_key bigint[],
    p_items save_item_v1[]
)
RETURNS TABLE (
    item integer, status integer, saved_revision bigint, head_transcript_id bigint,
    session_id bigint, session_name text, uid uuid, user_id text, head_revision bigint, message_count bigint,
    size_bytes bigint, labels jsonb, create_time timestamptz, update_time timestamptz,
    last_restore_time timestamptz, delete_time timestamptz
)
LANGUAGE plpgsql VOLATILE
-- One plan for every batch size, by index only: statistics of young tables must not choose it.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    busy integer[];
BEGIN
    busy := lock_sessions_v1(p_lock_item, p_lock_key, p_wait);
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        -- Each item stays one value: rows of fifty columns make every step of the plan dear to set up.
        SELECT k AS ordinality, p_items[k] AS i FROM generate_series(1, cardinality(p_items)) AS k
    ),
    judged AS (
        SELECT
            a.ordinality,
            a.i,
            c.session_id AS known_session_id,
            v.revision AS served_revision,
            CASE
                WHEN a.ordinality = ANY (busy) THEN 9
                -- The session of the plan is gone; another may have its name.
                WHEN (a.i).planned_session_id <> 0 AND c.session_id IS NULL THEN 7
                WHEN v.revision IS NOT NULL AND v.fingerprint = (a.i).fingerprint THEN 1
                WHEN v.revision IS NOT NULL THEN 2
                WHEN (a.i).server_named AND c.session_id IS NOT NULL THEN 8
                WHEN c.delete_time IS NOT NULL THEN 3
                WHEN (a.i).expected_revision <> coalesce(c.head_revision, 0) THEN 4
                WHEN (a.i).user_id <> '' AND c.user_id <> '' AND (a.i).user_id <> c.user_id THEN 5
                WHEN (a.i).checkpoint_id IS NOT NULL AND EXISTS (
                    SELECT FROM revisions AS k
                    WHERE k.bucket = (a.i).bucket AND k.session_id = c.session_id
                        AND k.checkpoint_id = (a.i).checkpoint_id
                ) THEN 6
                WHEN (a.i).planned_head <> coalesce(c.head_revision, 0)
                    OR (a.i).planned_session_id <> coalesce(c.session_id, 0) THEN 7
                WHEN (a.i).base_missing THEN 10
                ELSE 0
            END AS status
        FROM asked AS a
        -- The session that the plan is for; else by its name, and one that the server
        -- named by the request that made it.
        LEFT JOIN LATERAL (
            SELECT p.session_id, p.head_revision, p.delete_time, p.user_id FROM sessions AS p
            WHERE (a.i).planned_session_id <> 0 AND p.bucket = (a.i).bucket AND p.session_id = (a.i).planned_session_id
            UNION ALL
            SELECT made.session_id, made.head_revision, made.delete_time, made.user_id FROM sessions AS made
            WHERE (a.i).planned_session_id = 0 AND (a.i).server_named
                AND made.bucket = (a.i).bucket AND made.tenant_id = (a.i).tenant_id
                AND made.agent_id = (a.i).agent_id AND made.create_request_id = (a.i).request_id
            UNION ALL
            SELECT named.session_id, named.head_revision, named.delete_time, named.user_id FROM sessions AS named
            WHERE (a.i).planned_session_id = 0 AND named.bucket = (a.i).bucket AND named.tenant_id = (a.i).tenant_id
                AND named.agent_id = (a.i).agent_id AND named.session_name = (a.i).session_name
            LIMIT 1
        ) AS c ON true
        -- A save that stored this request before. One with expected_revision can only
        -- have made the next number; a delta is newer than its base; a snapshot without
        -- either is in the index. The last few rows catch an id that was used again in
        -- another way.
        LEFT JOIN LATERAL (
            SELECT n.revision, n.fingerprint FROM revisions AS n
            WHERE n.bucket = (a.i).bucket AND n.session_id = c.session_id
                -- No number follows the largest bigint.
                AND n.revision =
                    CASE WHEN (a.i).expected_revision < 9223372036854775807 THEN (a.i).expected_revision + 1 END
                AND n.request_id = (a.i).request_id
            UNION ALL
            SELECT u.revision, u.fingerprint FROM revisions AS u
            WHERE u.bucket = (a.i).bucket AND u.session_id = c.session_id
                AND u.request_id = (a.i).request_id AND u.unconditional AND (a.i).base_revision IS NULL
            UNION ALL
            SELECT w.revision, w.fingerprint FROM revisions AS w
            WHERE w.bucket = (a.i).bucket AND w.session_id = c.session_id
                AND w.revision > coalesce((a.i).base_revision, c.head_revision - 8) AND w.request_id = (a.i).request_id
            LIMIT 1
        ) AS v ON true
    ),
    accepted AS MATERIALIZED (
        SELECT
            j.*,
            coalesce(j.known_session_id, nextval('session_ids')) AS session_id,
            coalesce((j.i).transcript_id, nextval('transcript_ids')) AS head_transcript_id,
            (j.i).planned_head + 1 AS revision
        FROM judged AS j
        WHERE j.status = 0
    ),
    created AS (
        INSERT INTO sessions AS s (
            session_id, tenant_id, head_revision, head_transcript_id, head_transcript_length, message_count,
            message_bytes, size_bytes, create_time, update_time, bucket, uid, create_request_id, head_digest,
            agent_id, session_name, user_id, labels
        )
        SELECT
            n.session_id, (n.i).tenant_id, n.revision, n.head_transcript_id, (n.i).transcript_length,
            (n.i).message_count,
            (n.i).message_bytes, (n.i).size_bytes, (n.i).save_time, (n.i).save_time, (n.i).bucket, (n.i).uid,
            CASE WHEN (n.i).server_named THEN (n.i).request_id END, (n.i).digest,
            (n.i).agent_id, (n.i).session_name, (n.i).user_id, (n.i).labels::jsonb
        FROM accepted AS n
        WHERE n.known_session_id IS NULL
        RETURNING s.*
    ),
    moved AS (
        UPDATE sessions AS s
        SET head_revision = n.revision,
            head_transcript_id = n.head_transcript_id,
            head_transcript_length = (n.i).transcript_length,
            message_count = (n.i).message_count,
            message_bytes = (n.i).message_bytes,
            size_bytes = (n.i).size_bytes,
            -- Servers' clocks differ; the session's time does not go back.
            update_time = greatest(s.update_time, (n.i).save_time),
            head_digest = (n.i).digest,
            user_id = CASE WHEN s.user_id = '' THEN (n.i).user_id ELSE s.user_id END,
            labels = CASE WHEN (n.i).labels IS NULL THEN s.labels ELSE (n.i).labels::jsonb END
        FROM accepted AS n
        WHERE n.known_session_id IS NOT NULL AND s.bucket = (n.i).bucket AND s.session_id = n.known_session_id
        RETURNING n.ordinality, s.*
    ),
    begun AS (
        INSERT INTO transcripts (
            transcript_id, tenant_id, parent_transcript_id, parent_message_count, parent_digest, parent_bytes, bucket,
            depth
        )
        SELECT
            n.head_transcript_id, (n.i).tenant_id, (n.i).parent_transcript_id, (n.i).parent_message_count,
            (n.i).parent_digest,
            (n.i).parent_bytes, (n.i).bucket, (n.i).depth
        FROM accepted AS n
        WHERE (n.i).transcript_id IS NULL
    ),
    appended AS (
        INSERT INTO transcript_segments (
            transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec,
            digest, payload
        )
        SELECT
            n.head_transcript_id, (n.i).message_count - (n.i).last_count, (n.i).tenant_id, (n.i).message_bytes,
            (n.i).bucket,
            (n.i).last_count, (n.i).last_raw_size, (n.i).last_checksum, (n.i).last_codec, (n.i).digest,
            (n.i).last_payload
        FROM accepted AS n
        WHERE (n.i).last_payload IS NOT NULL
        UNION ALL
        SELECT
            n.head_transcript_id, g.first_message, (n.i).tenant_id, g.end_bytes, (n.i).bucket,
            g.message_count, g.raw_size, g.checksum, g.codec, g.digest, g.payload
        FROM accepted AS n CROSS JOIN LATERAL unnest((n.i).segments) AS g
        WHERE cardinality((n.i).segments) > 0
    ),
    valued AS (
        INSERT INTO state_values (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT DISTINCT ON ((n.i).bucket, (n.i).tenant_id, (n.i).agent_id, v.digest)
            (n.i).tenant_id, (n.i).bucket, v.raw_size, v.checksum, v.codec, (n.i).agent_id, v.digest, v.payload
        FROM accepted AS n CROSS JOIN LATERAL unnest((n.i).new_values) AS v
        WHERE cardinality((n.i).new_values) > 0 AND NOT (n.i).repair
        ON CONFLICT DO NOTHING
    ),
    repaired AS (
        INSERT INTO state_values AS stored (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT DISTINCT ON ((n.i).bucket, (n.i).tenant_id, (n.i).agent_id, v.digest)
            (n.i).tenant_id, (n.i).bucket, v.raw_size, v.checksum, v.codec, (n.i).agent_id, v.digest, v.payload
        FROM accepted AS n CROSS JOIN LATERAL unnest((n.i).new_values) AS v
        WHERE cardinality((n.i).new_values) > 0 AND (n.i).repair
        ON CONFLICT (bucket, tenant_id, agent_id, digest) DO UPDATE
        SET raw_size = excluded.raw_size, checksum = excluded.checksum, codec = excluded.codec,
            payload = excluded.payload
    ),
    stored AS (
        INSERT INTO revisions (
            session_id, revision, tenant_id, parent_revision, transcript_id, message_count, message_bytes, size_bytes,
            create_time, bucket, state_raw_size, checksum, state_codec, unconditional, request_id, fingerprint,
            digest, state_digest, state, value_digests, value_names, checkpoint_id, metadata
        )
        SELECT
            n.session_id, n.revision, (n.i).tenant_id, coalesce((n.i).base_revision, (n.i).planned_head),
            n.head_transcript_id,
            (n.i).message_count, (n.i).message_bytes, (n.i).size_bytes, (n.i).save_time, (n.i).bucket,
            (n.i).state_raw_size, (n.i).checksum,
            (n.i).state_codec, (n.i).expected_revision IS NULL AND (n.i).base_revision IS NULL, (n.i).request_id,
            (n.i).fingerprint,
            (n.i).digest, (n.i).state_digest, (n.i).state, (n.i).value_digests, (n.i).value_names::jsonb,
            (n.i).checkpoint_id, (n.i).metadata::jsonb
        FROM accepted AS n
    ),
    logged AS (
        INSERT INTO session_events (
            tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id, session_name,
            client_id, actor
        )
        SELECT
            (n.i).tenant_id, n.session_id, n.revision, (n.i).save_time, (n.i).bucket, 1, (n.i).event_id,
            (n.i).request_id, (n.i).agent_id,
            (n.i).session_name, nullif((n.i).client_id, ''), (n.i).actor
        FROM accepted AS n
    )
    SELECT
        s.ordinality::integer, 0, s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
        s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time, s.last_restore_time,
        s.delete_time
    FROM moved AS s
    UNION ALL
    SELECT
        n.ordinality::integer, 0, s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
        s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time, s.last_restore_time,
        s.delete_time
    FROM created AS s JOIN accepted AS n ON (n.i).bucket = s.bucket AND n.session_id = s.session_id
    UNION ALL
    SELECT
        j.ordinality::integer, j.status, j.served_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid,
        s.user_id, s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time,
        s.last_restore_time, s.delete_time
    FROM judged AS j
    LEFT JOIN sessions AS s ON s.bucket = (j.i).bucket AND s.session_id = j.known_session_id
    WHERE j.status <> 0;
END $$;

-- Restores (2), deletes (3) and undeletes (4): each changes a session's row and
-- writes an event. One item per session at most.
--
-- status: 0 done, 1 replayed, 2 request_id reused, 3 deleted, 4 revision
-- mismatch, 5 not deleted, 6 not found, 7 stale (the name is another session's by
-- now than the one that was read), 9 busy. For a replay, changed_revision
-- is the revision of the first call's event.
CREATE FUNCTION change_sessions_v1(
    p_wait boolean,
    p_lock_item integer[],
    p_lock_key bigint[],
    p_type smallint[],
    p_bucket integer[],
    p_tenant_id bigint[],
    p_agent_id text[],
    p_session_name text[],
    p_expected_revision bigint[],
    -- The session that was read and the revision that was restored; NULL, NULL: none was, the head.
    p_read_session_id bigint[],
    p_revision bigint[],
    p_request_id uuid[],
    p_fingerprint bytea[],
    p_client_id text[],
    p_actor text[],
    p_change_time timestamptz[],
    p_event_id uuid[]
)
RETURNS TABLE (
    item integer, status integer, changed_revision bigint,
    session_id bigint, session_name text, uid uuid, user_id text, head_revision bigint, message_count bigint,
    size_bytes bigint, labels jsonb, create_time timestamptz, update_time timestamptz,
    last_restore_time timestamptz, delete_time timestamptz
)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    busy integer[];
BEGIN
    busy := lock_sessions_v1(p_lock_item, p_lock_key, p_wait);
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT * FROM unnest(
            p_type, p_bucket, p_tenant_id, p_agent_id, p_session_name, p_expected_revision, p_read_session_id,
            p_revision, p_request_id, p_fingerprint, p_client_id, p_actor, p_change_time, p_event_id
        ) WITH ORDINALITY AS a (
            type, bucket, tenant_id, agent_id, session_name, expected_revision, read_session_id,
            revision, request_id, fingerprint, client_id, actor, change_time, event_id, item
        )
    ),
    current AS (
        SELECT a.item, s.*
        FROM asked AS a
        JOIN sessions AS s ON s.bucket = a.bucket AND s.tenant_id = a.tenant_id
            AND s.agent_id = a.agent_id AND s.session_name = a.session_name
    ),
    served AS (
        SELECT a.item, e.session_id, e.revision, e.fingerprint
        FROM asked AS a
        CROSS JOIN LATERAL (
            SELECT l.session_id, l.revision, l.fingerprint FROM session_events AS l
            WHERE l.bucket = a.bucket AND l.request_id = a.request_id AND l.type <> 1 AND l.type = a.type
                AND l.tenant_id = a.tenant_id AND l.agent_id = a.agent_id AND l.session_name = a.session_name
            LIMIT 1
        ) AS e
    ),
    judged AS (
        SELECT
            a.*,
            c.session_id,
            coalesce(v.revision, a.revision, c.head_revision) AS changed_revision,
            CASE
                WHEN a.item = ANY (busy) THEN 9
                WHEN v.revision IS NOT NULL AND v.fingerprint IS DISTINCT FROM a.fingerprint THEN 2
                WHEN c.session_id IS NULL THEN 6
                WHEN v.revision IS NOT NULL THEN 1
                WHEN a.read_session_id <> c.session_id THEN 7
                WHEN a.type <> 4 AND c.delete_time IS NOT NULL THEN 3
                WHEN a.expected_revision <> c.head_revision THEN 4
                WHEN a.type = 4 AND c.delete_time IS NULL THEN 5
                ELSE 0
            END AS status
        FROM asked AS a
        LEFT JOIN current AS c ON c.item = a.item
        -- A session that was purged is not the one of its name that was made later.
        LEFT JOIN served AS v ON v.item = a.item AND v.session_id = c.session_id
    ),
    changed AS (
        UPDATE sessions AS s
        SET last_restore_time = CASE j.type
                WHEN 2 THEN greatest(s.last_restore_time, j.change_time) ELSE s.last_restore_time END,
            update_time = CASE j.type
                WHEN 2 THEN s.update_time ELSE greatest(s.update_time, j.change_time) END,
            delete_time = CASE j.type
                WHEN 3 THEN j.change_time WHEN 4 THEN NULL ELSE s.delete_time END
        FROM judged AS j
        WHERE j.status = 0 AND s.bucket = j.bucket AND s.session_id = j.session_id
        RETURNING s.*
    ),
    logged AS (
        INSERT INTO session_events (
            tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, fingerprint, agent_id,
            session_name, client_id, actor
        )
        SELECT
            j.tenant_id, j.session_id, j.changed_revision, j.change_time, j.bucket, j.type, j.event_id, j.request_id,
            j.fingerprint, j.agent_id, j.session_name, nullif(j.client_id, ''), j.actor
        FROM judged AS j
        WHERE j.status = 0
    )
    SELECT
        j.item::integer, j.status, j.changed_revision,
        s.session_id, s.session_name, s.uid, s.user_id, s.head_revision, s.message_count, s.size_bytes, s.labels,
        s.create_time, s.update_time, s.last_restore_time, s.delete_time
    FROM judged AS j
    LEFT JOIN (
        SELECT q.item, w.* FROM judged AS q JOIN changed AS w ON w.session_id = q.session_id AND w.bucket = q.bucket
        UNION ALL
        SELECT c.item, c.session_id, c.tenant_id, c.head_revision, c.head_transcript_id, c.head_transcript_length,
            c.message_count, c.message_bytes, c.size_bytes, c.create_time, c.update_time, c.last_restore_time,
            c.delete_time, c.bucket, c.uid, c.create_request_id, c.head_digest, c.agent_id, c.session_name,
            c.user_id, c.labels
        FROM current AS c JOIN judged AS q ON q.item = c.item WHERE q.status <> 0
    ) AS s ON s.item = j.item;
END $$;

-- Removes a session, its revisions and its transcripts for good and logs DELETED.
-- Values that other sessions of the agent may share stay. status and columns
-- are those of change_sessions_v1; a replay finds only the event, so what the
-- event does not tell is NULL then.
CREATE FUNCTION purge_session_v1(
    p_lock_key bigint,
    p_bucket integer,
    p_tenant_id bigint,
    p_agent_id text,
    p_session_name text,
    p_expected_revision bigint,
    p_request_id uuid,
    p_fingerprint bytea,
    p_client_id text,
    p_actor text,
    p_change_time timestamptz,
    p_event_id uuid
)
RETURNS TABLE (
    status integer, changed_revision bigint,
    session_id bigint, session_name text, uid uuid, user_id text, head_revision bigint, message_count bigint,
    size_bytes bigint, labels jsonb, create_time timestamptz, update_time timestamptz,
    last_restore_time timestamptz, delete_time timestamptz
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    gone sessions%ROWTYPE;
    before session_events%ROWTYPE;
    owned bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(p_lock_key);
    SELECT * INTO before FROM session_events AS l
    WHERE l.bucket = p_bucket AND l.request_id = p_request_id AND l.type = 3
        AND l.tenant_id = p_tenant_id AND l.agent_id = p_agent_id AND l.session_name = p_session_name;
    IF FOUND THEN
        RETURN QUERY SELECT CASE WHEN before.fingerprint = p_fingerprint THEN 1 ELSE 2 END, before.revision,
            before.session_id, before.session_name, NULL::uuid, NULL::text, before.revision, NULL::bigint,
            NULL::bigint, NULL::jsonb, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, before.create_time;
        RETURN;
    END IF;

    SELECT * INTO gone FROM sessions AS s
    WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
        AND s.session_name = p_session_name;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 6, NULL::bigint, NULL::bigint, NULL::text, NULL::uuid, NULL::text, NULL::bigint,
            NULL::bigint, NULL::bigint, NULL::jsonb, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz,
            NULL::timestamptz;
        RETURN;
    END IF;

    IF p_expected_revision <> gone.head_revision THEN
        RETURN QUERY SELECT 4, gone.head_revision, gone.session_id, gone.session_name, gone.uid, gone.user_id,
            gone.head_revision, gone.message_count, gone.size_bytes, gone.labels, gone.create_time, gone.update_time,
            gone.last_restore_time, gone.delete_time;
        RETURN;
    END IF;

    -- Every transcript that a revision uses, and all their ancestors.
    WITH RECURSIVE used AS (
        SELECT DISTINCT r.transcript_id FROM revisions AS r
        WHERE r.bucket = p_bucket AND r.session_id = gone.session_id
        UNION
        SELECT t.parent_transcript_id FROM used
        JOIN transcripts AS t ON t.bucket = p_bucket AND t.transcript_id = used.transcript_id
        WHERE t.parent_transcript_id IS NOT NULL
    )
    SELECT array_agg(used.transcript_id) INTO owned FROM used;
    DELETE FROM transcript_segments AS g WHERE g.bucket = p_bucket AND g.transcript_id = ANY (owned);
    DELETE FROM transcripts AS t WHERE t.bucket = p_bucket AND t.transcript_id = ANY (owned);
    DELETE FROM revisions AS r WHERE r.bucket = p_bucket AND r.session_id = gone.session_id;
    DELETE FROM sessions AS s WHERE s.bucket = p_bucket AND s.session_id = gone.session_id;
    INSERT INTO session_events (
        tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, fingerprint, agent_id,
        session_name, client_id, actor
    ) VALUES (
        p_tenant_id, gone.session_id, gone.head_revision, p_change_time, p_bucket, 3, p_event_id, p_request_id,
        p_fingerprint, p_agent_id, p_session_name, nullif(p_client_id, ''), p_actor
    );
    RETURN QUERY SELECT 0, gone.head_revision, gone.session_id, gone.session_name, gone.uid, gone.user_id,
        gone.head_revision, gone.message_count, gone.size_bytes, gone.labels, gone.create_time, gone.update_time,
        gone.last_restore_time, coalesce(gone.delete_time, p_change_time);
END $$;
