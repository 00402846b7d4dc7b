-- Where a log went on after a failover to a replica or a recovery to an earlier point:
-- transaction ids and event numbers above that place may have been used before, for
-- other events, which are lost. What was given out on an earlier timeline is good up
-- to there only.
CREATE TABLE log_timelines (
    source smallint,
    timeline bigint,
    -- The last watermark that had been written, and replicated, on the timeline before.
    start_xid xid8 NOT NULL,
    start_seq bigint NOT NULL,
    PRIMARY KEY (source, timeline)
);

-- Tells the log in which cluster, and on which timeline of it, it is now. To be called
-- over each new connection before the log is read. Returns the log's place, and its
-- earlier ones' ends.
--
-- Another system identifier: the database was dumped and restored into another
-- cluster, whose transaction ids have nothing to do with those of the events. They are
-- kept for as long as a request_id is good, before all that is written from now on; if
-- some of them would come after it, all are put into one place, where their numbers
-- keep them in order.
CREATE FUNCTION adopt_log_v1(p_source smallint, p_system_identifier numeric, p_timeline bigint)
RETURNS TABLE (
    system_identifier numeric, timeline bigint, token_secret bytea, start_timelines bigint[], start_xids xid8[],
    start_seqs bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    known log_state;
    here xid8;
BEGIN
    SELECT * INTO known FROM log_state AS l WHERE l.source = p_source;
    IF (known.system_identifier, known.timeline) IS DISTINCT FROM (p_system_identifier, p_timeline) THEN
        SELECT * INTO known FROM log_state AS l WHERE l.source = p_source FOR UPDATE;
        IF known.system_identifier IS NULL THEN
            UPDATE log_state AS l SET system_identifier = p_system_identifier, timeline = p_timeline
            WHERE l.source = p_source;
        ELSIF known.system_identifier <> p_system_identifier THEN
            here := pg_current_xact_id();
            IF EXISTS (SELECT FROM session_events WHERE xid >= here) THEN
                UPDATE session_events SET xid = '1' WHERE xid > '1';
            END IF;
            DELETE FROM log_timelines AS t WHERE t.source = p_source;
            UPDATE log_state AS l
            SET system_identifier = p_system_identifier, timeline = p_timeline, horizon_xid = '0', horizon_seq = 0,
                watermark_xid = '0', watermark_seq = 0
            WHERE l.source = p_source;
        ELSIF known.timeline < p_timeline THEN
            INSERT INTO log_timelines (source, timeline, start_xid, start_seq)
            VALUES (p_source, p_timeline, known.watermark_xid, known.watermark_seq);
            UPDATE log_state AS l SET timeline = p_timeline WHERE l.source = p_source;
        END IF;
    END IF;
    RETURN QUERY
        SELECT l.system_identifier, l.timeline, l.token_secret, t.timelines, t.xids, t.seqs
        FROM log_state AS l
        CROSS JOIN (
            SELECT array_agg(s.timeline) AS timelines, array_agg(s.start_xid) AS xids, array_agg(s.start_seq) AS seqs
            FROM log_timelines AS s WHERE s.source = p_source
        ) AS t
        WHERE l.source = p_source;
END $$;
