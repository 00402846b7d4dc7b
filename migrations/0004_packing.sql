-- Packing: many small segments of a transcript become one. Payloads, order and
-- digests of the messages stay what they are, so no reader sees a difference.

-- How far a session has been packed. A table of its own: the rows of sessions
-- are updated by every save. A purged session's row goes when the walk comes by.
CREATE TABLE packed_sessions (
    session_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    -- The head when the session was packed: what later revisions wrote has not been looked at.
    head_revision bigint NOT NULL,
    bucket integer NOT NULL,
    -- A transcript whose last segments were left as they were, because it may still grow.
    open_transcript_id bigint,
    PRIMARY KEY (bucket, session_id)
);

-- Spans agents: who packs, and how far the walk through all sessions has come.
CREATE TABLE packing_state (
    source smallint PRIMARY KEY,
    -- The server that packs until held_until, and then goes on unless another one has begun.
    holder uuid,
    held_until timestamptz NOT NULL,
    -- The last session that was looked at. Before all: between two rounds.
    walked_bucket integer NOT NULL,
    walked_session_id bigint NOT NULL,
    round_ended timestamptz NOT NULL
);

INSERT INTO packing_state (source, held_until, walked_bucket, walked_session_id, round_ended)
VALUES (0, '-infinity', -1, 0, '-infinity');

-- Replaces segments by one that holds the same messages.
--
-- It takes the session's lock, since a purge that began before this ends would
-- not see the new row and leave it behind. It does not wait for the lock: saves
-- come first. Nobody else changes or removes segments without that lock.
--
-- Returns 0 done, 1 the session is being changed, 2 not all the rows that were
-- read are there, 3 somebody else packs by now. Nothing is written but for 0.
CREATE FUNCTION pack_segments_v1(
    p_holder uuid,
    p_lock_key bigint,
    p_bucket integer,
    p_tenant_id bigint,
    p_transcript_id bigint,
    -- The rows that were read.
    p_first_messages bigint[],
    p_checksums integer[],
    -- The row instead.
    p_new save_segment_v1
)
RETURNS integer LANGUAGE plpgsql VOLATILE
-- By index only: statistics of young tables must not choose the plan.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    removed integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(p_lock_key) THEN
        RETURN 1;
    END IF;
    IF NOT EXISTS (SELECT FROM packing_state AS p WHERE p.source = 0 AND p.holder = p_holder) THEN
        RETURN 3;
    END IF;
    IF cardinality(p_first_messages) <> (
        SELECT count(*) FROM unnest(p_first_messages, p_checksums) AS r (first_message, checksum)
        CROSS JOIN LATERAL (
            SELECT FROM transcript_segments AS g
            WHERE g.bucket = p_bucket AND g.tenant_id = p_tenant_id AND g.transcript_id = p_transcript_id
                AND g.first_message = r.first_message AND g.checksum = r.checksum
            OFFSET 0
        ) AS found
    ) THEN
        RETURN 2;
    END IF;

    DELETE FROM transcript_segments AS g
    WHERE g.bucket = p_bucket AND g.tenant_id = p_tenant_id AND g.transcript_id = p_transcript_id
        AND g.first_message = ANY (p_first_messages);
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed <> cardinality(p_first_messages) THEN
        RAISE EXCEPTION 'segments of transcript % changed without their session''s lock', p_transcript_id;
    END IF;
    INSERT INTO transcript_segments (
        transcript_id, first_message, tenant_id, end_bytes, bucket, message_count, raw_size, checksum, codec, digest,
        payload
    ) VALUES (
        p_transcript_id, p_new.first_message, p_tenant_id, p_new.end_bytes, p_bucket, p_new.message_count,
        p_new.raw_size, p_new.checksum, p_new.codec, p_new.digest, p_new.payload
    );
    -- Nobody waits for this commit to reach the disk. It is lost as a whole or not at all.
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN 0;
END $$;
