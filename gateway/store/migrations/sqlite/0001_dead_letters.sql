-- Dead letters: the full record of each message that could not be delivered.
-- Small columns come first, so that lists and searches never read the pages of the bodies.
CREATE TABLE dead_letters (
    sequence        INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    failed_at_ms    INTEGER NOT NULL,
    pipeline        TEXT    NOT NULL,
    config_version  TEXT    NOT NULL,
    step            TEXT,
    target          TEXT,
    class           TEXT    NOT NULL,
    plugin          TEXT,
    plugin_digest   TEXT,
    trace_id        TEXT,
    redrive_count   INTEGER NOT NULL,
    attempt_count   INTEGER NOT NULL,
    message_id      TEXT    NOT NULL,
    message_kind    TEXT    NOT NULL,
    body_bytes      INTEGER NOT NULL,
    error           TEXT    NOT NULL,
    evidence        TEXT    NOT NULL, -- JSON: schema errors, backtrace, attempts
    original_head   TEXT    NOT NULL, -- JSON: attributes and headers as received
    failing_head    TEXT,             -- the same at the failing step; NULL when a step changed nothing of it
    original_body   BLOB    NOT NULL,
    failing_body    BLOB              -- NULL when a step changed nothing of it
) STRICT;

-- Newest first, alone and by each thing people ask for; retention by age and count walks the same indexes.
CREATE INDEX dead_letters_by_time     ON dead_letters (failed_at_ms, id);
CREATE INDEX dead_letters_by_pipeline ON dead_letters (pipeline, failed_at_ms, id);
CREATE INDEX dead_letters_by_class    ON dead_letters (class, failed_at_ms, id);
CREATE INDEX dead_letters_by_target   ON dead_letters (target, failed_at_ms, id) WHERE target IS NOT NULL;
CREATE INDEX dead_letters_by_message  ON dead_letters (message_id);
