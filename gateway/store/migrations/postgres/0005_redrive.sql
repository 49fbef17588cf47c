-- Dead letters grouped by cause, edited and redriven.
ALTER TABLE dead_letters
    ADD COLUMN cause        TEXT COLLATE "C" NOT NULL DEFAULT '', -- fingerprint of place, class, plugin and error
    ADD COLUMN edited_at_ms BIGINT,                               -- NULL when it goes on as it was
    ADD COLUMN edited_by    TEXT COLLATE "C",
    ADD COLUMN edited_head  TEXT COLLATE "C",                     -- JSON, for its headers; NULL when only the body was edited
    ADD COLUMN edited_body  BYTEA;                                -- NULL when only the headers were edited

-- Those recorded before have no fingerprint of their error.
UPDATE dead_letters SET cause = 'before/' || pipeline || '/' || coalesce(step, target, '') || '/' || class;

-- Has all that grouping asks for.
CREATE INDEX dead_letters_by_cause ON dead_letters (cause, pipeline, failed_at_ms, id);

CREATE TABLE redrive_jobs (
    id              TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    selection       TEXT   COLLATE "C" NOT NULL, -- JSON: what was asked for
    origin          TEXT   COLLATE "C" NOT NULL, -- failed_step or start
    rate_per_second BIGINT NOT NULL,
    patch           TEXT   COLLATE "C",          -- JSON merge patch of bodies
    max_redrives    BIGINT NOT NULL,
    created_by      TEXT   COLLATE "C" NOT NULL,
    created_at_ms   BIGINT NOT NULL,
    ended_at_ms     BIGINT,
    state           TEXT   COLLATE "C" NOT NULL, -- running, paused, cancelled, done
    owner           TEXT   COLLATE "C"           -- the gateway that runs it
);

CREATE INDEX redrive_jobs_by_state ON redrive_jobs (state, created_at_ms);

CREATE TABLE redrive_items (
    job           TEXT   COLLATE "C" NOT NULL,
    number        BIGINT NOT NULL,             -- in the order in which they are sent, from 1
    letter        TEXT   COLLATE "C" NOT NULL,
    state         TEXT   COLLATE "C" NOT NULL, -- pending, sent, delivered, filtered, dead_lettered, skipped, failed
    redrive_count BIGINT,                      -- this redrive's, once it is sent
    delivered     BIGINT NOT NULL DEFAULT 0,   -- 1 once a part of it was delivered
    outcome       TEXT   COLLATE "C",
    at_ms         BIGINT,
    PRIMARY KEY (job, number)
);

CREATE INDEX redrive_items_by_state  ON redrive_items (job, state, number);
CREATE INDEX redrive_items_by_letter ON redrive_items (letter, state);
