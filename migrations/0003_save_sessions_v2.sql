-- save_sessions_v2 does what save_sessions_v1 does with less work. v1 judges and
-- writes a batch in one large statement, whose executor takes long to start however
-- few saves there are. v2 moves all sessions that exist, and writes their rows, with
-- one smaller statement; what is not the usual save is judged before, one by one.
--
-- v1 stays for servers of the previous release.

-- What only some saves have.
CREATE TYPE save_rest_v2 AS (
    server_named boolean,
    -- The base is not there, or is not the one that the caller means.
    base_missing boolean,
    -- Of a new session.
    uid uuid,
    -- Of a new transcript.
    parent_transcript_id bigint,
    parent_message_count bigint,
    parent_digest bytea,
    parent_bytes bigint,
    depth integer,
    segments save_segment_v1[],
    new_values save_value_v1[],
    -- Overwrite values that are stored already (self_contained): heals damaged ones.
    repair boolean
);

-- One save. Every column costs time, on both sides, so those that are
-- nearly always empty stand apart.
CREATE TYPE save_item_v2 AS (
    -- Its number in the batch, from 1.
    item integer,
    bucket integer,
    tenant_id bigint,
    agent_id text,
    session_name text,
    -- The head that the plan was made for: 0 and 0 if there was no session. The
    -- number alone would not tell a session from one that took its name.
    planned_session_id bigint,
    planned_head bigint,
    -- Of a delta: the revision it is based on; NULL for a snapshot.
    base_revision bigint,
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
    event_id uuid,
    -- NULL: a new transcript.
    transcript_id bigint,
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
    rest save_rest_v2
);

-- What became of a save, in the columns of save_sessions_v1. A type by itself, since
-- a RETURNS TABLE is put together from its columns anew by every call.
CREATE TYPE save_result_v2 AS (
    item integer, status integer, saved_revision bigint, head_transcript_id bigint,
    session_id bigint, session_name text, uid uuid, user_id text, head_revision bigint, message_count bigint,
    size_bytes bigint, labels jsonb, create_time timestamptz, update_time timestamptz,
    last_restore_time timestamptz, delete_time timestamptz
);

-- What a save comes to that is not plainly the next after its base. The caller
-- holds the session's lock. status is that of save_sessions_v1 but 9; all other
-- columns but item are the session's as it is.
CREATE FUNCTION judge_save_v2(i save_item_v2) RETURNS save_result_v2 LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    more save_rest_v2 := i.rest;
    known sessions;
    served bigint;
    stored_fingerprint bytea;
    status integer;
BEGIN
    -- One that the server named is found by the request that made it, all others by name.
    IF more.server_named THEN
        SELECT * INTO known FROM sessions AS s
        WHERE s.bucket = i.bucket AND s.tenant_id = i.tenant_id AND s.agent_id = i.agent_id
            AND s.create_request_id = i.request_id;
    END IF;
    IF known.session_id IS NULL THEN
        SELECT * INTO known FROM sessions AS s
        WHERE s.bucket = i.bucket AND s.tenant_id = i.tenant_id AND s.agent_id = i.agent_id
            AND s.session_name = i.session_name;
    END IF;

    -- A save that stored this request before. One with expected_revision can only
    -- have made the next number; a delta is newer than its base; a snapshot without
    -- either is in the index. The last few rows catch an id that was used again in
    -- another way.
    IF known.session_id IS NOT NULL AND i.planned_session_id IN (0, known.session_id) THEN
        IF i.expected_revision < known.head_revision THEN
            SELECT r.revision, r.fingerprint INTO served, stored_fingerprint FROM revisions AS r
            WHERE r.bucket = i.bucket AND r.session_id = known.session_id
                AND r.revision = i.expected_revision + 1 AND r.request_id = i.request_id;
        END IF;
        IF served IS NULL AND i.base_revision IS NULL THEN
            SELECT r.revision, r.fingerprint INTO served, stored_fingerprint FROM revisions AS r
            WHERE r.bucket = i.bucket AND r.session_id = known.session_id
                AND r.request_id = i.request_id AND r.unconditional;
        END IF;
        IF served IS NULL THEN
            SELECT r.revision, r.fingerprint INTO served, stored_fingerprint FROM revisions AS r
            WHERE r.bucket = i.bucket AND r.session_id = known.session_id
                AND r.revision > least(i.base_revision, known.head_revision - 8) AND r.request_id = i.request_id;
        END IF;
    END IF;

    status := CASE
        -- The session of the plan is gone; another may have its name.
        WHEN i.planned_session_id <> 0 AND i.planned_session_id IS DISTINCT FROM known.session_id THEN 7
        WHEN served IS NOT NULL AND stored_fingerprint = i.fingerprint THEN 1
        WHEN served IS NOT NULL THEN 2
        WHEN more.server_named AND known.session_id IS NOT NULL THEN 8
        WHEN known.delete_time IS NOT NULL THEN 3
        WHEN i.expected_revision <> coalesce(known.head_revision, 0) THEN 4
        WHEN i.user_id <> '' AND known.user_id <> '' AND i.user_id <> known.user_id THEN 5
        ELSE 0
    END;
    IF status = 0 AND i.checkpoint_id IS NOT NULL THEN
        PERFORM FROM revisions AS r
        WHERE r.bucket = i.bucket AND r.session_id = known.session_id AND r.checkpoint_id = i.checkpoint_id;
        IF FOUND THEN
            status := 6;
        END IF;
    END IF;
    IF status = 0 AND (
        i.planned_head <> coalesce(known.head_revision, 0) OR i.planned_session_id <> coalesce(known.session_id, 0)
    ) THEN
        status := 7;
    ELSIF status = 0 AND more.base_missing THEN
        status := 10;
    END IF;
    RETURN ROW(
        i.item, status, served, known.head_transcript_id, known.session_id, known.session_name, known.uid,
        known.user_id, known.head_revision, known.message_count, known.size_bytes, known.labels, known.create_time,
        known.update_time, known.last_restore_time, known.delete_time
    );
END $$;

-- Writes a save's segments but the last, and its new values.
CREATE FUNCTION save_more_v2(i save_item_v2) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    more save_rest_v2 := i.rest;
BEGIN
    IF more.segments IS NOT NULL THEN
        INSERT INTO transcript_segments (
            transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec,
            digest, payload
        )
        SELECT
            i.transcript_id, g.first_message, i.tenant_id, g.end_bytes, i.bucket, g.message_count, g.raw_size,
            g.checksum, g.codec, g.digest, g.payload
        FROM unnest(more.segments) AS g;
    END IF;
    IF more.new_values IS NOT NULL AND more.repair THEN
        INSERT INTO state_values AS stored (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT DISTINCT ON (v.digest)
            i.tenant_id, i.bucket, v.raw_size, v.checksum, v.codec, i.agent_id, v.digest, v.payload
        FROM unnest(more.new_values) AS v
        ON CONFLICT (bucket, tenant_id, agent_id, digest) DO UPDATE
        SET raw_size = excluded.raw_size, checksum = excluded.checksum, codec = excluded.codec,
            payload = excluded.payload;
    ELSIF more.new_values IS NOT NULL THEN
        INSERT INTO state_values (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT i.tenant_id, i.bucket, v.raw_size, v.checksum, v.codec, i.agent_id, v.digest, v.payload
        FROM unnest(more.new_values) AS v
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- Stores one save: the first of a session, or one that came alone. Returns NULL
-- if the head is not the planned one.
CREATE FUNCTION save_one_v2(i save_item_v2) RETURNS save_result_v2 LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    more save_rest_v2;
    made save_result_v2;
BEGIN
    IF i.planned_session_id = 0 THEN
        more := i.rest;
        INSERT INTO sessions AS s (
            session_id, tenant_id, head_revision, head_transcript_id, head_transcript_length, message_count,
            message_bytes, size_bytes, create_time, update_time, bucket, uid, create_request_id, head_digest,
            agent_id, session_name, user_id, labels
        ) VALUES (
            nextval('session_ids'), i.tenant_id, 1, i.transcript_id, i.transcript_length, i.message_count,
            i.message_bytes, i.size_bytes, i.save_time, i.save_time, i.bucket, more.uid,
            CASE WHEN more.server_named THEN i.request_id END, i.digest,
            i.agent_id, i.session_name, i.user_id, i.labels::jsonb
        )
        RETURNING i.item, 0, s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
            s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time,
            s.last_restore_time, s.delete_time
        INTO made;
    ELSE
        UPDATE sessions AS s
        SET head_revision = i.planned_head + 1,
            head_transcript_id = i.transcript_id,
            head_transcript_length = i.transcript_length,
            message_count = i.message_count,
            message_bytes = i.message_bytes,
            size_bytes = i.size_bytes,
            -- Servers' clocks differ; the session's time does not go back.
            update_time = greatest(s.update_time, i.save_time),
            head_digest = i.digest,
            user_id = CASE WHEN s.user_id = '' THEN i.user_id ELSE s.user_id END,
            labels = CASE WHEN i.labels IS NULL THEN s.labels ELSE i.labels::jsonb END
        -- By all of its name, though the id would do: while the table is young, to the planner any
        -- index that begins with the bucket is as good as the one of the ids. For the same reason
        -- not IS NULL, which a partial index of lists would fit.
        WHERE s.bucket = i.bucket AND s.tenant_id = i.tenant_id AND s.agent_id = i.agent_id
            AND s.session_name = i.session_name AND s.session_id = i.planned_session_id
            AND s.head_revision = i.planned_head AND coalesce(s.delete_time, 'infinity') = 'infinity'
            AND (i.user_id = '' OR s.user_id = '' OR s.user_id = i.user_id)
        RETURNING i.item, 0, s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
            s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time,
            s.last_restore_time, s.delete_time
        INTO made;
        IF made.session_id IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    IF i.last_payload IS NOT NULL THEN
        INSERT INTO transcript_segments (
            transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec,
            digest, payload
        ) VALUES (
            i.transcript_id, i.message_count - i.last_count, i.tenant_id, i.message_bytes, i.bucket, i.last_count,
            i.last_raw_size, i.last_checksum, i.last_codec, i.digest, i.last_payload
        );
    END IF;
    INSERT INTO revisions (
        session_id, revision, tenant_id, parent_revision, transcript_id, message_count, message_bytes, size_bytes,
        create_time, bucket, state_raw_size, checksum, state_codec, unconditional, request_id, fingerprint,
        digest, state_digest, state, value_digests, value_names, checkpoint_id, metadata
    ) VALUES (
        made.session_id, made.head_revision, i.tenant_id, coalesce(i.base_revision, i.planned_head), i.transcript_id,
        i.message_count, i.message_bytes, i.size_bytes, i.save_time, i.bucket, i.state_raw_size, i.checksum,
        i.state_codec, i.expected_revision IS NULL AND i.base_revision IS NULL, i.request_id, i.fingerprint,
        i.digest, i.state_digest, i.state, i.value_digests, i.value_names::jsonb, i.checkpoint_id, i.metadata::jsonb
    );
    INSERT INTO session_events (
        tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id, session_name,
        client_id, actor
    ) VALUES (
        i.tenant_id, made.session_id, made.head_revision, i.save_time, i.bucket, 1, i.event_id, i.request_id,
        i.agent_id, i.session_name, nullif(i.client_id, ''), i.actor
    );
    RETURN made;
END $$;

-- Saves a batch: one item per session at most. The locks must come in key order.
-- status is that of save_sessions_v1; the rows come in no order.
--
-- p_judged are the numbers of the items that are not the usual save: a delta on
-- the planned head, which makes no session, transcript, value or checkpoint, and has
-- one segment at most. If the head of the usual save is still the planned one, as
-- the UPDATE sees, no revision is newer than the base, so none can have stored the
-- request before, and there is nothing to judge.
CREATE FUNCTION save_sessions_v2(
    p_wait boolean,
    p_lock_item integer[],
    p_lock_key bigint[],
    p_judged integer[],
    p_items save_item_v2[]
)
RETURNS SETOF save_result_v2 LANGUAGE plpgsql VOLATILE
-- By index only: statistics of young tables must not choose the plan.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    save save_item_v2;
    result save_result_v2;
    answered integer[] := '{}';
BEGIN
    FOR n IN 1 .. cardinality(p_lock_key) LOOP
        IF p_wait THEN
            PERFORM pg_advisory_xact_lock(p_lock_key[n]);
        ELSIF NOT pg_try_advisory_xact_lock(p_lock_key[n]) AND p_lock_item[n] <> ALL (answered) THEN
            result.item := p_lock_item[n];
            result.status := 9;
            answered := answered || result.item;
            RETURN NEXT result;
        END IF;
    END LOOP;

    FOR k IN 1 .. cardinality(p_judged) LOOP
        save := p_items[p_judged[k]];
        CONTINUE WHEN save.item = ANY (answered);
        result := judge_save_v2(save);
        IF result.status = 0 THEN
            IF save.transcript_id IS NULL THEN
                save.transcript_id := nextval('transcript_ids');
                p_items[save.item] := save;
                INSERT INTO transcripts (
                    transcript_id, tenant_id, parent_transcript_id, parent_message_count, parent_digest,
                    parent_bytes, bucket, depth
                ) VALUES (
                    save.transcript_id, save.tenant_id, (save.rest).parent_transcript_id,
                    (save.rest).parent_message_count, (save.rest).parent_digest, (save.rest).parent_bytes,
                    save.bucket, (save.rest).depth
                );
            END IF;
            IF (save.rest).segments IS NOT NULL OR (save.rest).new_values IS NOT NULL THEN
                PERFORM save_more_v2(save);
            END IF;
            -- All others are stored below, with the usual ones.
            CONTINUE WHEN save.planned_session_id <> 0;
            result := save_one_v2(save);
        END IF;
        answered := answered || save.item;
        RETURN NEXT result;
    END LOOP;
    IF cardinality(answered) = cardinality(p_items) THEN
        RETURN;
    END IF;

    -- Setting up the large statement does not pay for one save.
    IF cardinality(p_items) = 1 THEN
        result := save_one_v2(p_items[1]);
        IF result.item IS NOT NULL THEN
            RETURN NEXT result;
            RETURN;
        END IF;
    ELSE
        FOR result IN
            WITH moved AS (
                UPDATE sessions AS s
                SET head_revision = i.planned_head + 1,
                    head_transcript_id = i.transcript_id,
                    head_transcript_length = i.transcript_length,
                    message_count = i.message_count,
                    message_bytes = i.message_bytes,
                    size_bytes = i.size_bytes,
                    -- Servers' clocks differ; the session's time does not go back.
                    update_time = greatest(s.update_time, i.save_time),
                    head_digest = i.digest,
                    user_id = CASE WHEN s.user_id = '' THEN i.user_id ELSE s.user_id END,
                    labels = CASE WHEN i.labels IS NULL THEN s.labels ELSE i.labels::jsonb END
                FROM unnest(p_items) AS i
                -- The planner is left no other way than to look up each item's session: nothing but the place
                -- joins them, and OFFSET keeps it so. As a plain join it reads a young table from end to end.
                -- By name, though the id would do: to that planner, any index that begins with the bucket is
                -- as good as the one of the ids. For the same reason not IS NULL, which an index of lists fits.
                CROSS JOIN LATERAL (
                    SELECT f.ctid AS place FROM sessions AS f
                    WHERE f.bucket = i.bucket AND f.tenant_id = i.tenant_id AND f.agent_id = i.agent_id
                        AND f.session_name = i.session_name AND f.session_id = i.planned_session_id
                        AND f.head_revision = i.planned_head AND coalesce(f.delete_time, 'infinity') = 'infinity'
                        AND (i.user_id = '' OR f.user_id = '' OR f.user_id = i.user_id)
                    OFFSET 0
                ) AS found
                WHERE s.ctid = found.place AND i.item <> ALL (answered)
                RETURNING i, s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
                    s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time, s.last_restore_time,
                    s.delete_time
            ),
            segment AS (
                INSERT INTO transcript_segments (
                    transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum,
                    codec, digest, payload
                )
                SELECT
                    (i).transcript_id, (i).message_count - (i).last_count, (i).tenant_id, (i).message_bytes, (i).bucket,
                    (i).last_count, (i).last_raw_size, (i).last_checksum, (i).last_codec, (i).digest, (i).last_payload
                FROM moved WHERE (i).last_payload IS NOT NULL
            ),
            revision AS (
                INSERT INTO revisions (
                    session_id, revision, tenant_id, parent_revision, transcript_id, message_count, message_bytes,
                    size_bytes, create_time, bucket, state_raw_size, checksum, state_codec, unconditional, request_id,
                    fingerprint, digest, state_digest, state, value_digests, value_names, checkpoint_id, metadata
                )
                SELECT
                    session_id, head_revision, (i).tenant_id, coalesce((i).base_revision, (i).planned_head),
                    (i).transcript_id, (i).message_count, (i).message_bytes, (i).size_bytes, (i).save_time, (i).bucket,
                    (i).state_raw_size, (i).checksum, (i).state_codec,
                    (i).expected_revision IS NULL AND (i).base_revision IS NULL, (i).request_id, (i).fingerprint,
                    (i).digest, (i).state_digest, (i).state, (i).value_digests, (i).value_names::jsonb,
                    (i).checkpoint_id, (i).metadata::jsonb
                FROM moved
            ),
            event AS (
                INSERT INTO session_events (
                    tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id,
                    session_name, client_id, actor
                )
                SELECT
                    (i).tenant_id, session_id, head_revision, (i).save_time, (i).bucket, 1, (i).event_id,
                    (i).request_id, (i).agent_id, (i).session_name, nullif((i).client_id, ''), (i).actor
                FROM moved
            )
            SELECT
                (i).item, 0, head_revision, head_transcript_id, session_id, session_name, uid, user_id, head_revision,
                message_count, size_bytes, labels, create_time, update_time, last_restore_time, delete_time
            FROM moved
        LOOP
            answered := answered || result.item;
            RETURN NEXT result;
        END LOOP;
    END IF;

    -- The usual saves whose head has moved.
    IF cardinality(answered) < cardinality(p_items) THEN
        FOREACH save IN ARRAY p_items LOOP
            CONTINUE WHEN save.item = ANY (answered);
            result := judge_save_v2(save);
            IF result.status = 0 THEN
                result.status := 7;
            END IF;
            RETURN NEXT result;
        END LOOP;
    END IF;
END $$;

-- Payloads of up to half a page stay in the row: in the TOAST table each would be one more row and one more
-- index entry to write, and one more look-up to read.
ALTER TABLE transcript_segments SET (toast_tuple_target = 4064);
