-- What nothing needs any more is removed in the background: values that no
-- revision of the agent names, transcripts that no revision uses (or a transcript
-- that one uses begins with), and events older than the log is kept.
--
-- No index tells who needs a row, and no save writes one for this. Instead, rows
-- that may have become unneeded are written down as suspects; all revisions of the
-- bucket are then read, and what they name is acquitted. See postgres/collector.py
-- for why nothing that is needed is ever removed.

-- Values that may be unneeded. A purge writes down those that its session named
-- (session_id, so that purges at the same time never wait for each other), a walk
-- over everything stored the others (0).
CREATE TABLE suspect_values (
    tenant_id bigint NOT NULL,
    session_id bigint NOT NULL,
    -- Who wrote it down: tells which suspects had been committed when a search began.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    bucket integer NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (bucket, tenant_id, agent_id, digest, session_id)
);

-- Transcripts that may be unneeded.
CREATE TABLE suspect_transcripts (
    transcript_id bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- When it was first seen without a revision: an upload may be about to make one.
    -- '-infinity' if no upload can.
    since timestamptz NOT NULL,
    bucket integer NOT NULL,
    PRIMARY KEY (bucket, transcript_id)
);

-- Purged sessions whose revisions were too many to be removed at once.
CREATE TABLE purged_sessions (
    session_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    bucket integer NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (bucket, session_id)
);

-- The collector's one row.
CREATE TABLE collection_state (
    id smallint PRIMARY KEY CHECK (id = 0),
    -- The walk over everything: the bucket it has come to, and when a round may begin.
    walk_bucket integer NOT NULL,
    next_walk timestamptz NOT NULL,
    -- The process that collects, and until when others leave it alone.
    holder uuid,
    held_until timestamptz NOT NULL
);

INSERT INTO collection_state (id, walk_bucket, next_walk, held_until)
VALUES (0, 0, now() + interval '1 day', '-infinity');

-- Whoever is about to name a value, so that it must stay, holds this lock of the
-- value's bucket until it has committed; the collector has it for itself while it
-- decides. (24150 is 0x5E56: the two-number space that session locks do not use.)
--
-- A trigger, so that it is true for every function that stores values, also those
-- of the previous release. It writes nothing unless the value is a suspect.
CREATE FUNCTION acquit_value_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(24150, NEW.bucket);
    DELETE FROM suspect_values AS s
    WHERE s.bucket = NEW.bucket AND s.tenant_id = NEW.tenant_id AND s.agent_id = NEW.agent_id
        AND s.digest = NEW.digest;
    RETURN NEW;
END $$;

CREATE TRIGGER acquit_value BEFORE INSERT ON state_values FOR EACH ROW EXECUTE FUNCTION acquit_value_v1();

-- Takes the lock above for the collector. False: saves that name values hold it and
-- do not end soon. Those that come meanwhile wait behind it, so the patience is short.
CREATE FUNCTION lock_values_v1(p_bucket integer) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET lock_timeout = '200ms'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(24150, p_bucket);
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END $$;

-- Begins a search for who needs a bucket's suspects: those that the snapshot shows
-- are what it is for. NULL: the lock was not to be had.
--
-- Who named a value before has committed now, and will be found. Who names one
-- later sees the suspect, and acquits it.
CREATE FUNCTION begin_search_v1(p_bucket integer) RETURNS pg_snapshot LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT lock_values_v1(p_bucket) THEN
        RETURN NULL;
    END IF;
    RETURN pg_current_snapshot();
END $$;

-- Ends the search for some values: removes those that are not needed and suspects
-- still, and none of which is a suspect afterwards. Returns how many were removed;
-- NULL: the lock was not to be had.
CREATE FUNCTION collect_values_v1(
    p_bucket integer,
    p_seen pg_snapshot,
    p_tenant_id bigint[],
    p_agent_id text[],
    p_digest bytea[],
    p_needed boolean[]
)
RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed integer := 0;
BEGIN
    IF NOT lock_values_v1(p_bucket) THEN
        RETURN NULL;
    END IF;
    FOR n IN 1 .. cardinality(p_digest) LOOP
        DELETE FROM suspect_values AS s
        WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id[n] AND s.agent_id = p_agent_id[n]
            AND s.digest = p_digest[n] AND pg_visible_in_snapshot(s.xid, p_seen);
        IF FOUND AND NOT p_needed[n] THEN
            DELETE FROM state_values AS v
            WHERE v.bucket = p_bucket AND v.tenant_id = p_tenant_id[n] AND v.agent_id = p_agent_id[n]
                AND v.digest = p_digest[n];
            IF FOUND THEN
                removed := removed + 1;
            END IF;
        END IF;
    END LOOP;
    RETURN removed;
END $$;

-- Where a piece ends that one short transaction can remove: the last of the first
-- p_rows rows that begin within p_bytes. Takes the first row, however large.
CREATE FUNCTION segments_piece_v1(p_bucket integer, p_transcript_id bigint, p_rows integer, p_bytes bigint)
RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT max(w.first_message) FROM (
        SELECT f.first_message, sum(f.raw_size::bigint) OVER (ORDER BY f.first_message) - f.raw_size AS before
        FROM (
            SELECT g.first_message, g.raw_size FROM transcript_segments AS g
            WHERE g.bucket = p_bucket AND g.transcript_id = p_transcript_id
            ORDER BY g.first_message LIMIT p_rows
        ) AS f
    ) AS w
    WHERE w.before < p_bytes
$$;

-- Removes a piece of a transcript that the search found nobody to need, and at last
-- its row. `more`: call again. A suspect that was written down anew meanwhile is left.
CREATE FUNCTION collect_transcript_v1(
    p_bucket integer, p_seen pg_snapshot, p_transcript_id bigint, p_rows integer, p_bytes bigint,
    OUT segments integer, OUT transcripts integer, OUT more boolean
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    until bigint;
BEGIN
    segments := 0;
    transcripts := 0;
    more := false;
    PERFORM FROM suspect_transcripts AS s
    WHERE s.bucket = p_bucket AND s.transcript_id = p_transcript_id AND pg_visible_in_snapshot(s.xid, p_seen);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    until := segments_piece_v1(p_bucket, p_transcript_id, p_rows, p_bytes);
    IF until IS NOT NULL THEN
        DELETE FROM transcript_segments AS g
        WHERE g.bucket = p_bucket AND g.transcript_id = p_transcript_id AND g.first_message <= until;
        GET DIAGNOSTICS segments = ROW_COUNT;
        more := true;
        RETURN;
    END IF;
    DELETE FROM transcripts AS t WHERE t.bucket = p_bucket AND t.transcript_id = p_transcript_id;
    GET DIAGNOSTICS transcripts = ROW_COUNT;
    DELETE FROM suspect_transcripts AS s
    WHERE s.bucket = p_bucket AND s.transcript_id = p_transcript_id AND pg_visible_in_snapshot(s.xid, p_seen);
END $$;

-- Removes a piece of the revisions of a purged session, and writes down as suspects
-- what they named. Returns how many; NULL: there is none, or values are being saved.
CREATE FUNCTION drain_purged_v1(p_bucket integer, p_session_id bigint, p_rows integer, p_bytes bigint)
RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    gone purged_sessions;
    until bigint;
    used bigint[];
    named bytea[];
    removed integer;
BEGIN
    SELECT max(w.revision), array_agg(DISTINCT w.transcript_id), array_agg(DISTINCT w.value_digests)
    INTO until, used, named
    FROM (
        SELECT f.*, sum(f.state_raw_size::bigint) OVER (ORDER BY f.revision) - f.state_raw_size AS before
        FROM (
            SELECT r.revision, r.transcript_id, r.value_digests, r.state_raw_size FROM revisions AS r
            WHERE r.bucket = p_bucket AND r.session_id = p_session_id
            ORDER BY r.revision LIMIT p_rows
        ) AS f
    ) AS w
    WHERE w.before < p_bytes;
    IF NOT lock_values_v1(p_bucket) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO gone FROM purged_sessions AS p WHERE p.bucket = p_bucket AND p.session_id = p_session_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF until IS NULL THEN
        DELETE FROM purged_sessions AS p WHERE p.bucket = p_bucket AND p.session_id = p_session_id;
        RETURN 0;
    END IF;
    -- A suspect again, for the next search: the one that is under way may have met the revisions.
    INSERT INTO suspect_values AS s (bucket, tenant_id, agent_id, digest, session_id)
    SELECT p_bucket, gone.tenant_id, gone.agent_id, d.digest, p_session_id FROM split_digests_v1(named) AS d (digest)
    ON CONFLICT (bucket, tenant_id, agent_id, digest, session_id) DO UPDATE SET xid = excluded.xid;
    INSERT INTO suspect_transcripts AS s (bucket, transcript_id, since)
    SELECT p_bucket, t.transcript_id, '-infinity' FROM with_ancestors_v1(p_bucket, used) AS t (transcript_id)
    ON CONFLICT (bucket, transcript_id) DO UPDATE SET xid = excluded.xid, since = excluded.since;
    DELETE FROM revisions AS r WHERE r.bucket = p_bucket AND r.session_id = p_session_id AND r.revision <= until;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Digests out of columns that hold several, 16 bytes each; each once, in order.
CREATE FUNCTION split_digests_v1(p_digests bytea[]) RETURNS SETOF bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT DISTINCT substring(d.digests FROM n.place * 16 + 1 FOR 16) AS digest
    FROM unnest(p_digests) AS d (digests)
    CROSS JOIN LATERAL generate_series(0, length(d.digests) / 16 - 1) AS n (place)
    ORDER BY digest
$$;

-- Transcripts and all that they begin with. UNION: damaged rows may go round in a circle.
CREATE FUNCTION with_ancestors_v1(p_bucket integer, p_transcript_ids bigint[])
RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    WITH RECURSIVE reached AS (
        SELECT u.transcript_id FROM unnest(p_transcript_ids) AS u (transcript_id)
        UNION
        SELECT t.parent_transcript_id FROM reached
        -- By primary key, whatever the statistics say.
        CROSS JOIN LATERAL (
            SELECT x.parent_transcript_id FROM transcripts AS x
            WHERE x.bucket = p_bucket AND x.transcript_id = reached.transcript_id
            LIMIT 1
        ) AS t
        WHERE t.parent_transcript_id IS NOT NULL
    )
    SELECT reached.transcript_id FROM reached
$$;

-- Does what purge_session_v1 does, and writes down the values that may be unneeded
-- now. Of a long session only the session goes at once, so that the transaction is
-- short: nobody can reach the rest any more, and the collector removes it.
CREATE FUNCTION purge_session_v2(
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
    gone sessions;
    named bytea[];
BEGIN
    PERFORM pg_advisory_xact_lock(p_lock_key);
    SELECT * INTO gone FROM sessions AS s
    WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
        AND s.session_name = p_session_name;

    IF (gone.head_revision > 500 OR gone.message_bytes > 16777216)
        AND coalesce(p_expected_revision, gone.head_revision) = gone.head_revision
        AND NOT EXISTS (
            SELECT FROM session_events AS l
            WHERE l.bucket = p_bucket AND l.request_id = p_request_id AND l.type = 3
                AND l.tenant_id = p_tenant_id AND l.agent_id = p_agent_id AND l.session_name = p_session_name
        )
    THEN
        INSERT INTO purged_sessions (bucket, session_id, tenant_id, agent_id)
        VALUES (p_bucket, gone.session_id, p_tenant_id, p_agent_id);
        -- By all of its name: see save_one_v2.
        DELETE FROM sessions AS s
        WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
            AND s.session_name = p_session_name;
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
        RETURN;
    END IF;

    SELECT array_agg(DISTINCT r.value_digests) INTO named FROM revisions AS r
    WHERE r.bucket = p_bucket AND r.session_id = gone.session_id AND r.value_digests IS NOT NULL;
    RETURN QUERY SELECT * FROM purge_session_v1(
        p_lock_key, p_bucket, p_tenant_id, p_agent_id, p_session_name, p_expected_revision, p_request_id,
        p_fingerprint, p_client_id, p_actor, p_change_time, p_event_id
    );
    PERFORM FROM sessions AS s
    WHERE s.bucket = p_bucket AND s.tenant_id = p_tenant_id AND s.agent_id = p_agent_id
        AND s.session_name = p_session_name;
    IF NOT FOUND THEN
        INSERT INTO suspect_values (bucket, tenant_id, agent_id, digest, session_id)
        SELECT p_bucket, p_tenant_id, p_agent_id, d.digest, gone.session_id FROM split_digests_v1(named) AS d (digest);
    END IF;
END $$;

-- Trims the log by one piece. log_state first tells, in a transaction of its own,
-- what is about to go; only a later call removes it. So a reader that sees in one
-- statement both the horizon and the events above it misses none.
--
-- An event is as old as its time says, which is a server's clock. One from the future
-- tells nothing, and must not keep all those after it for ever.
--
-- removed: rows; more: there is more to do now; oldest: time of the first event that
-- is kept. No row: somebody else is at work.
CREATE FUNCTION trim_events_v1(
    p_source smallint, p_before timestamptz, p_now timestamptz, p_rows integer
)
RETURNS TABLE (removed integer, more boolean, oldest timestamptz) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    horizon log_state;
    last record;
    e record;
    seen integer := 0;
    young boolean := false;
BEGIN
    IF NOT pg_try_advisory_xact_lock(24151, p_source) THEN
        RETURN;
    END IF;
    SELECT * INTO horizon FROM log_state AS l WHERE l.source = p_source;

    SELECT s.xid, s.seq INTO last FROM (
        SELECT v.xid, v.seq FROM session_events AS v
        WHERE (v.xid, v.seq) <= (horizon.horizon_xid, horizon.horizon_seq)
        ORDER BY v.xid, v.seq LIMIT p_rows
    ) AS s ORDER BY s.xid DESC, s.seq DESC LIMIT 1;
    IF FOUND THEN
        DELETE FROM session_events AS v WHERE (v.xid, v.seq) <= (last.xid, last.seq);
        GET DIAGNOSTICS removed = ROW_COUNT;
        more := true;
        RETURN NEXT;
        RETURN;
    END IF;

    removed := 0;
    more := false;
    FOR e IN
        SELECT v.xid, v.seq, v.create_time FROM session_events AS v
        WHERE (v.xid, v.seq) > (horizon.horizon_xid, horizon.horizon_seq)
            -- Nothing can be written before these any more.
            AND v.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY v.xid, v.seq LIMIT p_rows
    LOOP
        oldest := coalesce(oldest, e.create_time);
        seen := seen + 1;
        young := e.create_time >= p_before AND e.create_time <= p_now;
        EXIT WHEN young;
        IF e.create_time < p_before THEN
            last := e;
            more := true;
        END IF;
    END LOOP;
    -- All of them from the future: the first one after them that tells anything decides.
    IF seen = p_rows AND NOT (young OR more) THEN
        SELECT v.xid, v.seq, v.create_time INTO e FROM session_events AS v
        WHERE (v.xid, v.seq) > (horizon.horizon_xid, horizon.horizon_seq)
            AND v.xid < pg_snapshot_xmin(pg_current_snapshot()) AND v.create_time <= p_now
        ORDER BY v.xid, v.seq LIMIT 1;
        IF FOUND AND e.create_time < p_before THEN
            last := e;
            more := true;
        END IF;
    END IF;
    IF more THEN
        UPDATE log_state AS l SET horizon_xid = last.xid, horizon_seq = last.seq WHERE l.source = p_source;
    END IF;
    RETURN NEXT;
END $$;
