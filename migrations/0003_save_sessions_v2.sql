-- save_sessions_v2 does what save_sessions_v1 does with less work. v1 judges and
-- writes a batch in one large statement, whose executor takes long to start however
-- few saves there are. v2 moves the sessions one by one, which decides about each
-- save, and then writes rows of one table with one small statement, and only
-- those statements that the batch needs.
--
-- v1 stays for servers of the previous release.

-- What a save comes to that is not plainly the next after its base. The caller
-- holds the session's lock. status is that of save_sessions_v1 but 9.
CREATE FUNCTION judge_save_v2(i save_item_v1, OUT status integer, OUT served bigint, OUT known sessions)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    stored_fingerprint bytea;
BEGIN
    -- One that the server named is found by the request that made it, all others by name.
    IF i.server_named THEN
        SELECT * INTO known FROM sessions AS s
        WHERE s.bucket = i.bucket AND s.tenant_id = i.tenant_id AND s.agent_id = i.agent_id
            AND s.create_request_id = i.request_id;
    END IF;
    IF known.session_id IS NULL THEN
        SELECT * INTO known FROM sessions AS s
        WHERE s.bucket = i.bucket AND s.tenant_id = i.tenant_id AND s.agent_id = i.agent_id
            AND s.session_name = i.session_name;
    END IF;
    IF i.planned_session_id <> 0 AND i.planned_session_id IS DISTINCT FROM known.session_id THEN
        status := 7;  -- the session of the plan is gone; another may have its name
        RETURN;
    END IF;

    -- A save that stored this request before. One with expected_revision can only
    -- have made the next number; a delta is newer than its base; a snapshot without
    -- either is in the index. The last few rows catch an id that was used again in
    -- another way.
    IF known.session_id IS NOT NULL THEN
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
                AND r.revision > coalesce(i.base_revision, known.head_revision - 8) AND r.request_id = i.request_id;
        END IF;
    END IF;

    status := CASE
        WHEN served IS NOT NULL AND stored_fingerprint = i.fingerprint THEN 1
        WHEN served IS NOT NULL THEN 2
        WHEN i.server_named AND known.session_id IS NOT NULL THEN 8
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
    ELSIF status = 0 AND i.base_missing THEN
        status := 10;
    END IF;
END $$;

-- Saves a batch: one item per session at most. The locks must come in key order.
-- status and columns are those of save_sessions_v1; rows come in the items' order.
CREATE FUNCTION save_sessions_v2(
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
-- By index only: statistics of young tables must not choose the plan.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    i save_item_v1;
    busy integer[] := '{}';
    transcript bigint;
    -- Of each item; NULL if it was refused.
    stored_sessions bigint[] := '{}';
    stored_transcripts bigint[] := '{}';
    some_begin boolean := false;
    some_have_more_segments boolean := false;
    some_have_values boolean := false;
BEGIN
    FOR n IN 1 .. cardinality(p_lock_key) LOOP
        IF p_wait THEN
            PERFORM pg_advisory_xact_lock(p_lock_key[n]);
        ELSIF NOT pg_try_advisory_xact_lock(p_lock_key[n]) THEN
            busy := busy || p_lock_item[n];
        END IF;
    END LOOP;

    item := 0;
    FOREACH i IN ARRAY p_items LOOP
        item := item + 1;
        -- The usual save: a delta on the head. If the head is still the planned one, as the
        -- UPDATE sees, no revision is newer than the base, so none can have stored this request.
        status := 0;
        IF item = ANY (busy) THEN
            status := 9;
        ELSIF i.planned_session_id = 0 OR i.base_revision IS DISTINCT FROM i.planned_head OR i.base_missing
            OR i.expected_revision <> i.planned_head OR i.checkpoint_id IS NOT NULL
        THEN
            SELECT j.status INTO status FROM judge_save_v2(i) AS j;
        END IF;

        transcript := NULL;
        IF status = 0 THEN
            transcript := coalesce(i.transcript_id, nextval('transcript_ids'));
            IF i.planned_session_id = 0 THEN
                INSERT INTO sessions AS s (
                    session_id, tenant_id, head_revision, head_transcript_id, head_transcript_length, message_count,
                    message_bytes, size_bytes, create_time, update_time, bucket, uid, create_request_id, head_digest,
                    agent_id, session_name, user_id, labels
                ) VALUES (
                    nextval('session_ids'), i.tenant_id, 1, transcript, i.transcript_length, i.message_count,
                    i.message_bytes, i.size_bytes, i.save_time, i.save_time, i.bucket, i.uid,
                    CASE WHEN i.server_named THEN i.request_id END, i.digest,
                    i.agent_id, i.session_name, i.user_id, i.labels::jsonb
                )
                RETURNING s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
                    s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time,
                    s.last_restore_time, s.delete_time
                INTO saved_revision, head_transcript_id, session_id, session_name, uid, user_id,
                    head_revision, message_count, size_bytes, labels, create_time, update_time,
                    last_restore_time, delete_time;
            ELSE
                UPDATE sessions AS s
                SET head_revision = i.planned_head + 1,
                    head_transcript_id = transcript,
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
                RETURNING s.head_revision, s.head_transcript_id, s.session_id, s.session_name, s.uid, s.user_id,
                    s.head_revision, s.message_count, s.size_bytes, s.labels, s.create_time, s.update_time,
                    s.last_restore_time, s.delete_time
                INTO saved_revision, head_transcript_id, session_id, session_name, uid, user_id,
                    head_revision, message_count, size_bytes, labels, create_time, update_time,
                    last_restore_time, delete_time;
            END IF;
        END IF;

        IF status <> 0 OR session_id IS NULL THEN
            -- Refused; or the UPDATE found the usual save's head moved.
            SELECT CASE WHEN status <> 0 THEN status WHEN j.status <> 0 THEN j.status ELSE 7 END, j.served, (j.known).head_transcript_id, (j.known).session_id,
                (j.known).session_name, (j.known).uid, (j.known).user_id, (j.known).head_revision,
                (j.known).message_count, (j.known).size_bytes, (j.known).labels, (j.known).create_time,
                (j.known).update_time, (j.known).last_restore_time, (j.known).delete_time
            INTO STRICT status, saved_revision, head_transcript_id, session_id,
                session_name, uid, user_id, head_revision,
                message_count, size_bytes, labels, create_time,
                update_time, last_restore_time, delete_time
            FROM judge_save_v2(i) AS j;
            transcript := NULL;
        ELSE
            some_begin := some_begin OR i.transcript_id IS NULL;
            some_have_more_segments := some_have_more_segments OR i.segments IS NOT NULL;
            some_have_values := some_have_values OR i.new_values IS NOT NULL;
        END IF;
        stored_sessions[item] := session_id;
        stored_transcripts[item] := transcript;
        RETURN NEXT;
    END LOOP;

    INSERT INTO transcript_segments (
        transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec,
        digest, payload
    )
    SELECT
        stored_transcripts[n.ordinality], n.message_count - n.last_count, n.tenant_id, n.message_bytes, n.bucket,
        n.last_count, n.last_raw_size, n.last_checksum, n.last_codec, n.digest, n.last_payload
    FROM unnest(p_items) WITH ORDINALITY AS n
    WHERE stored_transcripts[n.ordinality] IS NOT NULL AND n.last_payload IS NOT NULL;
    INSERT INTO revisions (
        session_id, revision, tenant_id, parent_revision, transcript_id, message_count, message_bytes, size_bytes,
        create_time, bucket, state_raw_size, checksum, state_codec, unconditional, request_id, fingerprint,
        digest, state_digest, state, value_digests, value_names, checkpoint_id, metadata
    )
    SELECT
        stored_sessions[n.ordinality], n.planned_head + 1, n.tenant_id, coalesce(n.base_revision, n.planned_head),
        stored_transcripts[n.ordinality], n.message_count, n.message_bytes, n.size_bytes, n.save_time, n.bucket,
        n.state_raw_size, n.checksum, n.state_codec, n.expected_revision IS NULL AND n.base_revision IS NULL,
        n.request_id, n.fingerprint, n.digest, n.state_digest, n.state, n.value_digests, n.value_names::jsonb,
        n.checkpoint_id, n.metadata::jsonb
    FROM unnest(p_items) WITH ORDINALITY AS n
    WHERE stored_transcripts[n.ordinality] IS NOT NULL;
    INSERT INTO session_events (
        tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id, session_name,
        client_id, actor
    )
    SELECT
        n.tenant_id, stored_sessions[n.ordinality], n.planned_head + 1, n.save_time, n.bucket, 1, n.event_id,
        n.request_id, n.agent_id, n.session_name, nullif(n.client_id, ''), n.actor
    FROM unnest(p_items) WITH ORDINALITY AS n
    WHERE stored_transcripts[n.ordinality] IS NOT NULL;

    IF some_begin THEN
        INSERT INTO transcripts (
            transcript_id, tenant_id, parent_transcript_id, parent_message_count, parent_digest, parent_bytes,
            bucket, depth
        )
        SELECT
            stored_transcripts[n.ordinality], n.tenant_id, n.parent_transcript_id, n.parent_message_count,
            n.parent_digest, n.parent_bytes, n.bucket, n.depth
        FROM unnest(p_items) WITH ORDINALITY AS n
        WHERE stored_transcripts[n.ordinality] IS NOT NULL AND n.transcript_id IS NULL;
    END IF;
    IF some_have_more_segments THEN
        INSERT INTO transcript_segments (
            transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec,
            digest, payload
        )
        SELECT
            stored_transcripts[n.ordinality], g.first_message, n.tenant_id, g.end_bytes, n.bucket,
            g.message_count, g.raw_size, g.checksum, g.codec, g.digest, g.payload
        FROM unnest(p_items) WITH ORDINALITY AS n CROSS JOIN LATERAL unnest(n.segments) AS g
        WHERE stored_transcripts[n.ordinality] IS NOT NULL;
    END IF;
    IF some_have_values THEN
        INSERT INTO state_values (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT n.tenant_id, n.bucket, v.raw_size, v.checksum, v.codec, n.agent_id, v.digest, v.payload
        FROM unnest(p_items) WITH ORDINALITY AS n CROSS JOIN LATERAL unnest(n.new_values) AS v
        WHERE stored_transcripts[n.ordinality] IS NOT NULL AND NOT n.repair
        ON CONFLICT DO NOTHING;
        INSERT INTO state_values AS stored (tenant_id, bucket, raw_size, checksum, codec, agent_id, digest, payload)
        SELECT DISTINCT ON (n.bucket, n.tenant_id, n.agent_id, v.digest)
            n.tenant_id, n.bucket, v.raw_size, v.checksum, v.codec, n.agent_id, v.digest, v.payload
        FROM unnest(p_items) WITH ORDINALITY AS n CROSS JOIN LATERAL unnest(n.new_values) AS v
        WHERE stored_transcripts[n.ordinality] IS NOT NULL AND n.repair
        ON CONFLICT (bucket, tenant_id, agent_id, digest) DO UPDATE
        SET raw_size = excluded.raw_size, checksum = excluded.checksum, codec = excluded.codec,
            payload = excluded.payload;
    END IF;
END $$;
