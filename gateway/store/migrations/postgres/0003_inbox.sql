-- Inboxes: messages accepted and not carried yet, and those that wait for another attempt or for their time.
CREATE TABLE inbox (
    seq            BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline       TEXT    COLLATE "C" NOT NULL,
    lane           TEXT    COLLATE "C" NOT NULL, -- what it waits for: empty, or a target's name
    leads          INTEGER NOT NULL, -- 0 while an ordered message of its key is before it in its lane
    timed          INTEGER NOT NULL, -- 1: not before ready_at_ms; 0: at once, whatever the clock says
    ready_at_ms    BIGINT  NOT NULL, -- the oldest goes first
    key_hash       BYTEA,            -- of an ordered message: the first 16 bytes of its key's sha256
    bytes          BIGINT  NOT NULL, -- of heads and bodies
    redrive_letter TEXT    COLLATE "C",
    redrive_count  BIGINT,
    received_at_ms BIGINT  NOT NULL,
    claimed_by     TEXT    COLLATE "C", -- the gateway that carries it
    progress       TEXT    NOT NULL, -- JSON: step, attempts
    head           TEXT    NOT NULL, -- JSON: attributes and headers as it goes on
    original_head  TEXT,             -- the same as received; NULL if no step changed it
    body           BYTEA   NOT NULL,
    original_body  BYTEA             -- NULL if no step changed it
) WITH (
    -- Every message is inserted, claimed and deleted: clean up after thousands of them, not after a fifth of the table.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000
);

-- Claims walk it in their order.
CREATE INDEX inbox_ready    ON inbox (pipeline, lane, timed, ready_at_ms, seq) WHERE leads = 1 AND claimed_by IS NULL;
-- Who comes next when the first of a key has gone.
CREATE INDEX inbox_ordered  ON inbox (pipeline, lane, key_hash, seq) WHERE key_hash IS NOT NULL;
CREATE INDEX inbox_redriven ON inbox (redrive_letter) WHERE redrive_letter IS NOT NULL;
CREATE INDEX inbox_claimed  ON inbox (claimed_by) WHERE claimed_by IS NOT NULL;
-- The backlog is counted in it.
CREATE INDEX inbox_backlog  ON inbox (pipeline, lane, timed) INCLUDE (bytes);

-- Answers to requests that carried an Idempotency-Key.
CREATE TABLE idempotency (
    pipeline      TEXT    COLLATE "C" NOT NULL,
    key_hash      BYTEA   NOT NULL, -- sha256 of the key
    fingerprint   BYTEA   NOT NULL, -- sha256 of the request
    status        INTEGER NOT NULL,
    body          BYTEA   NOT NULL,
    expires_at_ms BIGINT  NOT NULL,
    PRIMARY KEY (pipeline, key_hash)
);
CREATE INDEX idempotency_expiring ON idempotency (expires_at_ms);

-- What was delivered: sha256 of source and id.
CREATE TABLE delivered (
    pipeline      TEXT    COLLATE "C" NOT NULL,
    key_hash      BYTEA   NOT NULL,
    expires_at_ms BIGINT  NOT NULL,
    PRIMARY KEY (pipeline, key_hash)
);
CREATE INDEX delivered_expiring ON delivered (expires_at_ms);
