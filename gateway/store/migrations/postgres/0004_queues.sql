-- Queues: managed durable streams. Counters are kept with each publication and removal, under the lock of the queue's
-- row, which also makes a queue's offsets visible in their order: a reader that has passed one never meets a lower one.
CREATE TABLE queues (
    queue_id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              TEXT COLLATE "C" NOT NULL UNIQUE, -- of a deleted queue, until it is empty: with `#` and its queue_id
    is_deleted        BIGINT NOT NULL,
    settings          TEXT NOT NULL, -- JSON
    revision          BIGINT NOT NULL,
    created_at_ms     BIGINT NOT NULL,
    updated_at_ms     BIGINT NOT NULL,
    last_offset       BIGINT NOT NULL,
    last_published_ms BIGINT NOT NULL, -- never goes back, whatever the clock does
    messages          BIGINT NOT NULL,
    bytes             BIGINT NOT NULL,
    scheduled         BIGINT NOT NULL,
    scheduled_bytes   BIGINT NOT NULL
);

-- Small columns come first, so that counts and lists never read the pages of the bodies.
CREATE TABLE queue_messages (
    queue_id        BIGINT NOT NULL,
    msg_offset      BIGINT NOT NULL, -- from 1 in each queue
    priority        BIGINT NOT NULL,
    published_at_ms BIGINT NOT NULL,
    expires_at_ms   BIGINT,
    size_bytes      BIGINT NOT NULL, -- head and body before compression
    stored_bytes    BIGINT NOT NULL,
    message_id      TEXT COLLATE "C" NOT NULL,
    message_key     BYTEA,
    head            TEXT COLLATE "C" NOT NULL, -- JSON: attributes and headers
    body            BYTEA NOT NULL,
    PRIMARY KEY (queue_id, msg_offset)
);
-- Claims walk it: the highest priority first, then the oldest.
CREATE INDEX queue_messages_by_priority ON queue_messages (queue_id, priority, msg_offset);
CREATE INDEX queue_messages_by_id       ON queue_messages (queue_id, substr(message_id, 1, 200));
CREATE INDEX queue_messages_expiring    ON queue_messages (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- Messages that wait for their time. When it has come they move to queue_messages.
CREATE TABLE queue_scheduled (
    scheduled_id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id        BIGINT NOT NULL,
    deliver_at_ms   BIGINT NOT NULL,
    priority        BIGINT NOT NULL,
    expires_at_ms   BIGINT,
    size_bytes      BIGINT NOT NULL,
    stored_bytes    BIGINT NOT NULL,
    message_id      TEXT COLLATE "C" NOT NULL,
    message_key     BYTEA,
    head            TEXT COLLATE "C" NOT NULL,
    body            BYTEA NOT NULL
);
CREATE INDEX queue_scheduled_due   ON queue_scheduled (deliver_at_ms, scheduled_id);
CREATE INDEX queue_scheduled_list  ON queue_scheduled (queue_id, deliver_at_ms, scheduled_id);
CREATE INDEX queue_scheduled_by_id ON queue_scheduled (queue_id, substr(message_id, 1, 200));

CREATE TABLE queue_groups (
    group_id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id         BIGINT NOT NULL,
    name             TEXT COLLATE "C" NOT NULL,
    is_paused        BIGINT NOT NULL,
    generation       BIGINT NOT NULL, -- one more with each reset: settlements of before do nothing
    cursors          TEXT COLLATE "C" NOT NULL, -- for each priority, 0 first, the offset up to which messages have been looked at
    lost             BIGINT NOT NULL,
    expired          BIGINT NOT NULL,
    created_at_ms    BIGINT NOT NULL,
    last_activity_ms BIGINT NOT NULL,
    UNIQUE (queue_id, name)
);

-- What a group has been given and has not settled, and what it has passed but waits for another of its key.
CREATE TABLE queue_claims (
    group_id      BIGINT NOT NULL,
    msg_offset    BIGINT NOT NULL,
    generation    BIGINT NOT NULL,
    priority      BIGINT NOT NULL,
    attempt       BIGINT NOT NULL, -- 0: never given out
    not_before_ms BIGINT NOT NULL,
    is_blocked    BIGINT NOT NULL, -- 1 while a message of the same lane is before it
    lane          BIGINT,          -- in ordered queues: hash of the key; NULL without one
    consumer      TEXT COLLATE "C",         -- who has it; NULL while nobody has
    owner         TEXT COLLATE "C",         -- the gateway of the consumer
    PRIMARY KEY (group_id, msg_offset)
) WITH (
    -- Rows come and go: clean up after thousands of them, not after a fifth of the table.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000
);
CREATE INDEX queue_claims_ready ON queue_claims (group_id, priority DESC, msg_offset)
    WHERE consumer IS NULL AND is_blocked = 0;
CREATE INDEX queue_claims_lanes ON queue_claims (group_id, lane, msg_offset) WHERE lane IS NOT NULL;
CREATE INDEX queue_claims_owned ON queue_claims (owner) WHERE owner IS NOT NULL;

CREATE TABLE queue_consumers (
    consumer     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    group_id     BIGINT NOT NULL,
    owner        TEXT COLLATE "C" NOT NULL,
    joined_at_ms BIGINT NOT NULL
);
CREATE INDEX queue_consumers_by_group ON queue_consumers (group_id);
CREATE INDEX queue_consumers_owned    ON queue_consumers (owner);
