-- Receipts: what happened to messages, one row a stretch of a message's way. Nothing of bodies.
CREATE TABLE receipts (
    seq             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id      TEXT COLLATE "C" NOT NULL,
    source          TEXT COLLATE "C" NOT NULL,
    kind            TEXT COLLATE "C" NOT NULL,
    correlation_id  TEXT COLLATE "C",
    message_key     BYTEA,
    trace_id        TEXT COLLATE "C",
    body_bytes      BIGINT           NOT NULL,
    pipeline        TEXT COLLATE "C" NOT NULL,
    config_version  TEXT COLLATE "C" NOT NULL,
    settlement      TEXT COLLATE "C" NOT NULL,
    failures        BIGINT           NOT NULL, -- attempts that failed
    received_at_ms  BIGINT           NOT NULL,
    began_at_ms     BIGINT           NOT NULL,
    ended_at_ms     BIGINT           NOT NULL,
    events          TEXT COLLATE "C" NOT NULL, -- JSON
    events_left_out BIGINT           NOT NULL  -- in the middle, where there were too many
);

-- Every index is paid for with each receipt; what senders choose is indexed by its beginning: an index's entry has at
-- most 2,700 bytes.
CREATE INDEX receipts_by_message     ON receipts (substr(message_id, 1, 200));
CREATE INDEX receipts_by_correlation ON receipts (substr(correlation_id, 1, 200)) WHERE correlation_id IS NOT NULL;
CREATE INDEX receipts_by_key         ON receipts (substr(message_key, 1, 200)) WHERE message_key IS NOT NULL;
-- Newest first, and retention.
CREATE INDEX receipts_by_time        ON receipts (began_at_ms, seq);
