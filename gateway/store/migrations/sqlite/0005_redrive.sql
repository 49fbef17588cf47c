-- Dead letters grouped by cause, edited and redriven.
ALTER TABLE dead_letters ADD COLUMN cause        TEXT NOT NULL DEFAULT ''; -- fingerprint of place, class, plugin and error
ALTER TABLE dead_letters ADD COLUMN edited_at_ms INTEGER;                  -- NULL when it goes on as it was
ALTER TABLE dead_letters ADD COLUMN edited_by    TEXT;
ALTER TABLE dead_letters ADD COLUMN edited_head  TEXT;                     -- JSON, for its headers; NULL when only the body was edited
ALTER TABLE dead_letters ADD COLUMN edited_body  BLOB;                     -- NULL when only the headers were edited

-- Those recorded before have no fingerprint of their error.
UPDATE dead_letters SET cause = 'before/' || pipeline || '/' || coalesce(step, target, '') || '/' || class;

-- Has all that grouping asks for.
CREATE INDEX dead_letters_by_cause ON dead_letters (cause, pipeline, failed_at_ms, id);

CREATE TABLE redrive_jobs (
    id              TEXT    NOT NULL PRIMARY KEY,
    selection       TEXT    NOT NULL, -- JSON: what was asked for
    origin          TEXT    NOT NULL, -- failed_step or start
    rate_per_second INTEGER NOT NULL,
    patch           TEXT,             -- JSON merge patch of bodies
    max_redrives    INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    ended_at_ms     INTEGER,
    state           TEXT    NOT NULL, -- running, paused, cancelled, done
    owner           TEXT              -- the gateway that runs it
) STRICT;

CREATE INDEX redrive_jobs_by_state ON redrive_jobs (state, created_at_ms);

CREATE TABLE redrive_items (
    job           TEXT    NOT NULL,
    number        INTEGER NOT NULL, -- in the order in which they are sent, from 1
    letter        TEXT    NOT NULL,
    state         TEXT    NOT NULL, -- pending, sent, delivered, filtered, dead_lettered, skipped, failed
    redrive_count INTEGER,          -- this redrive's, once it is sent
    delivered     INTEGER NOT NULL DEFAULT 0, -- 1 once a part of it was delivered
    outcome       TEXT,
    at_ms         INTEGER,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX redrive_items_by_state  ON redrive_items (job, state, number);
CREATE INDEX redrive_items_by_letter ON redrive_items (letter, state);
