-- Dead letters: the full record of each message that could not be delivered.
-- Text is compared by its bytes (COLLATE "C"), as SQLite does it: beginnings of ids are ranges.
CREATE TABLE dead_letters (
    sequence        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              TEXT COLLATE "C" NOT NULL UNIQUE,
    failed_at_ms    BIGINT           NOT NULL,
    pipeline        TEXT COLLATE "C" NOT NULL,
    config_version  TEXT COLLATE "C" NOT NULL,
    step            TEXT COLLATE "C",
    target          TEXT COLLATE "C",
    class           TEXT COLLATE "C" NOT NULL,
    plugin          TEXT COLLATE "C",
    plugin_digest   TEXT COLLATE "C",
    trace_id        TEXT COLLATE "C",
    redrive_count   BIGINT           NOT NULL,
    attempt_count   BIGINT           NOT NULL,
    message_id      TEXT COLLATE "C" NOT NULL,
    message_kind    TEXT COLLATE "C" NOT NULL,
    body_bytes      BIGINT           NOT NULL,
    error           TEXT COLLATE "C" NOT NULL,
    evidence        TEXT COLLATE "C" NOT NULL, -- JSON: schema errors, backtrace, attempts
    original_head   TEXT COLLATE "C" NOT NULL, -- JSON: attributes and headers as received
    failing_head    TEXT COLLATE "C",          -- the same at the failing step; NULL when a step changed nothing of it
    original_body   BYTEA            NOT NULL,
    failing_body    BYTEA                      -- NULL when a step changed nothing of it
);

-- Newest first, alone and by each thing people ask for; retention by age and count walks the same indexes.
-- What senders choose (pipelines and targets are names of the configuration) is indexed by its beginning: an index's
-- entry has at most 2,700 bytes.
CREATE INDEX dead_letters_by_time     ON dead_letters (failed_at_ms, id);
CREATE INDEX dead_letters_by_pipeline ON dead_letters (pipeline, failed_at_ms, id);
CREATE INDEX dead_letters_by_class    ON dead_letters (class, failed_at_ms, id);
CREATE INDEX dead_letters_by_target   ON dead_letters (target, failed_at_ms, id) WHERE target IS NOT NULL;
CREATE INDEX dead_letters_by_message  ON dead_letters (substr(message_id, 1, 200));
