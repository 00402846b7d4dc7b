"""`python -m tests.soak.naive_server serve …`: a server that reads the log as one does who knows no better.

By event numbers, without the watermark: what an open transaction numbered before others committed is gone past.
"""

from session_service.__main__ import main
from session_service.events import watches
from session_service.postgres import event_log

# All events in one transaction: their numbers alone are the order.
TAIL = """
    SELECT l.horizon_xid, l.horizon_seq, pg_current_snapshot() AS snapshot, false AS held_back, true AS is_last,
        false AS has_grown, '1'::xid8 AS last_xid,
        coalesce((SELECT max(e.seq) FROM session_events AS e), 0) AS last_seq, '0'::xid8 AS newest_xid,
        NULL::xid8 AS xid
    FROM log_state AS l WHERE l.source = $1
"""
READ = """
    WITH looked_at AS MATERIALIZED (
        SELECT '1'::xid8 AS xid, e.seq, e.tenant_id, e.revision, e.create_time, e.bucket, e.type, e.event_id,
            e.request_id, e.agent_id, e.session_name, e.client_id, e.actor
        FROM session_events AS e
        WHERE e.seq > $3 AND e.seq <= $5 AND $2::xid8 <= $4::xid8
        ORDER BY e.seq LIMIT $6
    ), last AS (
        SELECT max(w.seq) AS seq FROM looked_at AS w
    )
    SELECT l.horizon_xid, l.horizon_seq, pg_current_snapshot() AS snapshot, false AS held_back,
        (SELECT count(*) FROM looked_at) < $6 AS is_last, last.seq IS NOT NULL AS has_grown,
        CASE WHEN last.seq IS NOT NULL THEN '1'::xid8 END AS last_xid, last.seq AS last_seq, v.*
    FROM log_state AS l
    CROSS JOIN last
    LEFT JOIN LATERAL (
        SELECT * FROM looked_at AS w
        WHERE w.type = ANY ($7::smallint[])
            AND ($8::bigint IS NULL OR w.tenant_id = $8)
            AND ($9::integer IS NULL OR (w.bucket = $9 AND w.agent_id = $10))
            AND ($11::text IS NULL OR w.session_name = $11)
    ) AS v ON true
    WHERE l.source = $1
    ORDER BY v.seq
"""

event_log.TAIL, event_log.READ = TAIL, READ
# It knows of no transactions, so of none that are yet to come.
watches._is_beyond = lambda position, tail: False

if __name__ == "__main__":
    main()
