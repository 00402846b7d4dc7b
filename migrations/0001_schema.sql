-- The whole schema: immutable rows, one table per purpose.
--
-- `bucket` comes first in every key: BLAKE2b of (tenant, agent_id) modulo 1024.
-- It never changes for an agent, so that a distributed PostgreSQL can place all
-- rows of an agent together. The indexes that do without it serve what spans
-- agents, and say so.
--
-- There are no foreign keys on the save path. Each would lock a row per save
-- (more WAL, no HOT); these tables are written only by the functions of
-- 0002_functions.sql, under a lock per session, and read with checks.

CREATE TABLE tenants (
    tenant_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    -- Keys all digests of the tenant. Never rotated: prefix comparison and
    -- deduplication rest on it.
    digest_secret bytea NOT NULL,
    create_time timestamptz NOT NULL
);

-- 244 random bits from PostgreSQL's strong generator.
INSERT INTO tenants (name, digest_secret, create_time)
VALUES ('default', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), now());

CREATE SEQUENCE session_ids;

-- Updated by every save. fillfactor leaves room for HOT updates; therefore no
-- index may hold a column that a save moves: every save would then write to all
-- indexes of the table.
CREATE TABLE sessions (
    session_id bigint NOT NULL,
    tenant_id bigint NOT NULL REFERENCES tenants,
    head_revision bigint NOT NULL,
    -- Where the head's messages are, and how long that transcript is by now:
    -- the next save appends only if message_count equals it.
    head_transcript_id bigint NOT NULL,
    head_transcript_length bigint NOT NULL,
    message_count bigint NOT NULL,
    -- Of the head: all messages, framed; and the whole state. Uncompressed.
    message_bytes bigint NOT NULL,
    size_bytes bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    last_restore_time timestamptz,
    delete_time timestamptz,
    bucket integer NOT NULL,
    uid uuid NOT NULL,
    -- The request that made a session whose name the server chose.
    create_request_id uuid,
    -- Running digest over the head's messages.
    head_digest bytea NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    session_name text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    labels jsonb,
    PRIMARY KEY (bucket, session_id),
    UNIQUE (bucket, tenant_id, agent_id, session_name)
) WITH (fillfactor = 85);

CREATE UNIQUE INDEX sessions_create_request ON sessions (bucket, tenant_id, agent_id, create_request_id)
    WHERE create_request_id IS NOT NULL;
-- Lists of one agent in the default order. Partial, so that no plan takes it for
-- finding a session by name while the table is young and has no statistics.
CREATE INDEX sessions_by_create_time ON sessions (bucket, tenant_id, agent_id, create_time, session_id)
    WHERE delete_time IS NULL;
-- Spans agents: lists of a whole tenant in the default order.
CREATE INDEX sessions_of_tenant ON sessions (tenant_id, create_time, session_id)
    WHERE delete_time IS NULL;

CREATE SEQUENCE transcript_ids;

-- A run of messages. One with a parent begins with the parent's first
-- parent_message_count messages; its own segments start there.
CREATE TABLE transcripts (
    transcript_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    parent_transcript_id bigint,
    parent_message_count bigint NOT NULL,
    bucket integer NOT NULL,
    -- Number of ancestors.
    depth integer NOT NULL,
    -- Running digest over the messages that are the parent's, and their bytes, framed.
    parent_digest bytea NOT NULL,
    parent_bytes bigint NOT NULL,
    PRIMARY KEY (bucket, transcript_id)
);

-- Consecutive messages. The payload is a run of field 2 of AgentState in wire
-- form. Compressed by the server where that pays (codec), so not again here.
CREATE TABLE transcript_segments (
    transcript_id bigint NOT NULL,
    first_message bigint NOT NULL,
    tenant_id bigint NOT NULL,
    -- Bytes of all messages of the transcript up to this segment's end, framed.
    end_bytes bigint NOT NULL,
    bucket integer NOT NULL,
    message_count integer NOT NULL,
    -- Bytes of the payload when uncompressed.
    raw_size integer NOT NULL,
    -- CRC-32 over all other columns but the keys.
    checksum integer NOT NULL,
    codec smallint NOT NULL,
    -- Running digest over all messages of the transcript up to this segment's end.
    digest bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (bucket, transcript_id, first_message)
);
ALTER TABLE transcript_segments ALTER COLUMN payload SET STORAGE EXTERNAL;

-- A saved state: the first message_count messages of a transcript, and all else.
CREATE TABLE revisions (
    session_id bigint NOT NULL,
    revision bigint NOT NULL,
    tenant_id bigint NOT NULL,
    parent_revision bigint NOT NULL,
    transcript_id bigint NOT NULL,
    message_count bigint NOT NULL,
    message_bytes bigint NOT NULL,
    size_bytes bigint NOT NULL,
    create_time timestamptz NOT NULL,
    bucket integer NOT NULL,
    -- Bytes of `state` when uncompressed.
    state_raw_size integer NOT NULL,
    -- CRC-32 over all that a reader takes from this row.
    checksum integer NOT NULL,
    state_codec smallint NOT NULL,
    -- A snapshot saved with no precondition: only these need the index on request_id.
    -- The others are found by their number: expected_revision + 1, or above the base.
    unconditional boolean NOT NULL,
    request_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    digest bytea NOT NULL,
    state_digest bytea NOT NULL,
    -- AgentState in wire form, without agent_id, messages, and the values in value_digests.
    state bytea NOT NULL,
    -- Digests of values in state_values, 16 bytes each, one after another; and for each [name, bytes].
    value_digests bytea,
    value_names jsonb,
    checkpoint_id text COLLATE "C",
    metadata jsonb,
    PRIMARY KEY (bucket, session_id, revision)
);
ALTER TABLE revisions ALTER COLUMN state SET STORAGE EXTERNAL;

CREATE INDEX revisions_request ON revisions (bucket, session_id, request_id) WHERE unconditional;
CREATE UNIQUE INDEX revisions_checkpoint ON revisions (bucket, session_id, checkpoint_id)
    WHERE checkpoint_id IS NOT NULL;

-- A big named value, once per agent and content.
CREATE TABLE state_values (
    tenant_id bigint NOT NULL,
    bucket integer NOT NULL,
    raw_size integer NOT NULL,
    checksum integer NOT NULL,
    codec smallint NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (bucket, tenant_id, agent_id, digest)
);
ALTER TABLE state_values ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE SEQUENCE event_numbers;

-- The log. Readers go by (xid, seq) and never past the oldest running
-- transaction: numbers alone are handed out in another order than commits.
CREATE TABLE session_events (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint NOT NULL DEFAULT nextval('event_numbers'),
    tenant_id bigint NOT NULL,
    session_id bigint NOT NULL,
    revision bigint NOT NULL,
    create_time timestamptz NOT NULL,
    bucket integer NOT NULL,
    -- 1 SAVED, 2 RESTORED, 3 DELETED, 4 UNDELETED
    type smallint NOT NULL,
    event_id uuid NOT NULL,
    request_id uuid NOT NULL,
    fingerprint bytea,
    agent_id text COLLATE "C" NOT NULL,
    session_name text COLLATE "C" NOT NULL,
    client_id text COLLATE "C",
    actor text COLLATE "C" NOT NULL
);

-- Spans agents: the feed of all events.
CREATE INDEX session_events_feed ON session_events (xid, seq);
-- Finds a repeated restore, delete or undelete. Saves are found in revisions.
CREATE INDEX session_events_request ON session_events (bucket, request_id) WHERE type <> 1;

-- The log's identity, and how far back it reaches.
CREATE TABLE log_state (
    source smallint PRIMARY KEY,
    system_identifier numeric,
    timeline bigint,
    -- Everything up to here has been trimmed.
    horizon_xid xid8 NOT NULL,
    horizon_seq bigint NOT NULL,
    -- Everything up to here had been read by a feed at watermark_time.
    watermark_xid xid8 NOT NULL,
    watermark_seq bigint NOT NULL,
    watermark_time timestamptz NOT NULL,
    -- Signs resume tokens.
    token_secret bytea NOT NULL
);

INSERT INTO log_state (source, horizon_xid, horizon_seq, watermark_xid, watermark_seq, watermark_time, token_secret)
VALUES (0, '0', 0, '0', 0, now(),
        decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
