-- Repeated snapshots are found by revisions_repeated from now on.
CREATE OR REPLACE FUNCTION judge_save_v2(i save_item_v2) RETURNS save_result_v2 LANGUAGE plpgsql VOLATILE AS $$
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
            WHERE r.bucket = i.bucket
                AND request_place(r.session_id, r.request_id) = request_place(known.session_id, i.request_id)
                AND r.unconditional AND r.request_id = i.request_id
                -- Not the column itself: the planner would often take the index of the primary key for as good,
                -- since it does not know that a session's revisions are all in one bucket, and read all of them.
                AND r.session_id + 0 = known.session_id;
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
