-- A restore, delete or undelete that comes alone, as nearly all do: in plain statements. Setting up the one large
-- statement of change_sessions_v1 takes longer than all of these; it stays for those that come together, and for
-- servers of the previous release.

CREATE TYPE change_result_v2 AS (
    -- As change_sessions_v1 gives them.
    status integer,
    changed_revision bigint,
    session_id bigint,
    session_name text,
    uid uuid,
    user_id text,
    head_revision bigint,
    message_count bigint,
    size_bytes bigint,
    labels jsonb,
    create_time timestamptz,
    update_time timestamptz,
    last_restore_time timestamptz,
    delete_time timestamptz
);

CREATE FUNCTION change_session_v2(
    p_wait boolean,
    p_lock_key bigint,
    p_type smallint,
    p_bucket integer,
    p_tenant_id bigint,
    p_agent_id text,
    p_session_name text,
    p_expected_revision bigint,
    -- The session that was read and the revision that was restored; NULL, NULL: none was, the head.
    p_read_session_id bigint,
    p_revision bigint,
    p_request_id uuid,
    p_fingerprint bytea,
    p_client_id text,
    p_actor text,
    p_change_time timestamptz,
    p_event_id uuid
)
RETURNS change_result_v2 LANGUAGE plpgsql VOLATILE
-- By index only: statistics of young tables must not choose the plan.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    known sessions%ROWTYPE;
    served_revision bigint;
    served_fingerprint bytea;
    result_status integer := 0;
BEGIN
    IF p_wait THEN
        PERFORM pg_advisory_xact_lock(p_lock_key);
    ELSIF NOT pg_try_advisory_xact_lock(p_lock_key) THEN
        RETURN ROW(
            9, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        )::change_result_v2;
    END IF;

    SELECT * INTO known FROM sessions AS s
    WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
        AND s.session_name = p_session_name;
    -- A session that was purged is not the one of its name that was made later.
    SELECT l.revision, l.fingerprint INTO served_revision, served_fingerprint FROM session_events AS l
    WHERE l.bucket = p_bucket AND l.request_id = p_request_id AND l.type <> 1 AND l.type = p_type
        AND l.tenant_id = p_tenant_id AND l.agent_id = p_agent_id AND l.session_name = p_session_name
        AND l.session_id = known.session_id
    LIMIT 1;

    result_status := CASE
        WHEN known.session_id IS NULL THEN 6
        WHEN served_revision IS NOT NULL AND served_fingerprint IS DISTINCT FROM p_fingerprint THEN 2
        WHEN served_revision IS NOT NULL THEN 1
        WHEN p_read_session_id <> known.session_id THEN 7
        WHEN p_type <> 4 AND known.delete_time IS NOT NULL THEN 3
        WHEN p_expected_revision <> known.head_revision THEN 4
        WHEN p_type = 4 AND known.delete_time IS NULL THEN 5
        ELSE 0
    END;
    p_revision := coalesce(served_revision, p_revision, known.head_revision);

    IF result_status = 0 THEN
        IF p_type = 2 THEN
            known.last_restore_time := greatest(known.last_restore_time, p_change_time);
        ELSE
            known.update_time := greatest(known.update_time, p_change_time);
            known.delete_time := CASE p_type WHEN 3 THEN p_change_time END;
        END IF;
        -- By all of its name, though the id would do: see save_one_v2. Under the lock nobody else changes the row.
        UPDATE sessions AS s
        SET last_restore_time = known.last_restore_time, update_time = known.update_time,
            delete_time = known.delete_time
        WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
            AND s.session_name = p_session_name AND s.session_id = known.session_id;
        INSERT INTO session_events (
            tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, fingerprint, agent_id,
            session_name, client_id, actor
        ) VALUES (
            p_tenant_id, known.session_id, p_revision, p_change_time, p_bucket, p_type, p_event_id, p_request_id,
            p_fingerprint, p_agent_id, p_session_name, nullif(p_client_id, ''), p_actor
        );
    END IF;
    RETURN ROW(
        result_status, p_revision, known.session_id, known.session_name, known.uid, known.user_id, known.head_revision,
        known.message_count, known.size_bytes, known.labels, known.create_time, known.update_time,
        known.last_restore_time, known.delete_time
    )::change_result_v2;
END $$;
