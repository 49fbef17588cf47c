-- Inboxes: messages accepted and not carried yet, and those that wait for another attempt or for their time.
-- Small columns come first, so that what is asked of them never reads the pages of the bodies. Numbers are never used
-- again (AUTOINCREMENT): a settlement that comes late must not find another message under its number.
CREATE TABLE inbox (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline       TEXT    NOT NULL,
    lane           TEXT    NOT NULL, -- what it waits for: empty, or a target's name
    leads          INTEGER NOT NULL, -- 0 while an ordered message of its key is before it in its lane
    timed          INTEGER NOT NULL, -- 1: not before ready_at_ms; 0: at once, whatever the clock says
    ready_at_ms    INTEGER NOT NULL, -- the oldest goes first
    key_hash       BLOB,             -- of an ordered message: the first 16 bytes of its key's sha256
    bytes          INTEGER NOT NULL, -- of heads and bodies
    redrive_letter TEXT,
    redrive_count  INTEGER,
    received_at_ms INTEGER NOT NULL,
    claimed_by     TEXT,             -- used where several gateways share a store; NULL here
    progress       TEXT    NOT NULL, -- JSON: step, attempts
    head           TEXT    NOT NULL, -- JSON: attributes and headers as it goes on
    original_head  TEXT,             -- the same as received; NULL if no step changed it
    body           BLOB    NOT NULL,
    original_body  BLOB              -- NULL if no step changed it
) STRICT;

-- Claims walk it in their order and find all they need in it; the backlog is counted in it, too.
CREATE INDEX inbox_ready    ON inbox (pipeline, leads, lane, timed, ready_at_ms, seq, bytes);
-- Who comes next when the first of a key has gone.
CREATE INDEX inbox_ordered  ON inbox (pipeline, lane, key_hash, seq) WHERE key_hash IS NOT NULL;
CREATE INDEX inbox_claimed  ON inbox (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX inbox_redriven ON inbox (redrive_letter) WHERE redrive_letter IS NOT NULL;

-- Answers to requests that carried an Idempotency-Key.
CREATE TABLE idempotency (
    pipeline      TEXT    NOT NULL,
    key_hash      BLOB    NOT NULL, -- sha256 of the key
    fingerprint   BLOB    NOT NULL, -- sha256 of the request
    status        INTEGER NOT NULL,
    body          BLOB    NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (pipeline, key_hash)
) STRICT;
CREATE INDEX idempotency_expiring ON idempotency (expires_at_ms);

-- What was delivered: sha256 of source and id.
CREATE TABLE delivered (
    pipeline      TEXT    NOT NULL,
    key_hash      BLOB    NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (pipeline, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivered_expiring ON delivered (expires_at_ms);
