-- Receipts: what happened to messages, one row a stretch of a message's way. Nothing of bodies.
CREATE TABLE receipts (
    seq             INTEGER PRIMARY KEY,
    message_id      TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    correlation_id  TEXT,
    message_key     BLOB,
    trace_id        TEXT,
    body_bytes      INTEGER NOT NULL,
    pipeline        TEXT    NOT NULL,
    config_version  TEXT    NOT NULL,
    settlement      TEXT    NOT NULL,
    failures        INTEGER NOT NULL, -- attempts that failed
    received_at_ms  INTEGER NOT NULL,
    began_at_ms     INTEGER NOT NULL,
    ended_at_ms     INTEGER NOT NULL,
    events          TEXT    NOT NULL, -- JSON
    events_left_out INTEGER NOT NULL  -- in the middle, where there were too many
) STRICT;

-- Every index is paid for with each receipt; what senders choose is indexed by its beginning, as PostgreSQL needs it.
CREATE INDEX receipts_by_message     ON receipts (substr(message_id, 1, 200));
CREATE INDEX receipts_by_correlation ON receipts (substr(correlation_id, 1, 200)) WHERE correlation_id IS NOT NULL;
CREATE INDEX receipts_by_key         ON receipts (substr(message_key, 1, 200)) WHERE message_key IS NOT NULL;
-- Newest first, and retention.
CREATE INDEX receipts_by_time        ON receipts (began_at_ms);
