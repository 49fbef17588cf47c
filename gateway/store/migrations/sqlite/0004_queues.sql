-- Queues: managed durable streams. Counters are kept with each publication and removal, under the lock of the queue's
-- row, which also makes a queue's offsets visible in their order: a reader that has passed one never meets a lower one.
CREATE TABLE queues (
    queue_id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name              TEXT NOT NULL UNIQUE, -- of a deleted queue, until it is empty: with `#` and its queue_id
    is_deleted        INTEGER NOT NULL,
    settings          TEXT NOT NULL, -- JSON
    revision          INTEGER NOT NULL,
    created_at_ms     INTEGER NOT NULL,
    updated_at_ms     INTEGER NOT NULL,
    last_offset       INTEGER NOT NULL,
    last_published_ms INTEGER NOT NULL, -- never goes back, whatever the clock does
    messages          INTEGER NOT NULL,
    bytes             INTEGER NOT NULL,
    scheduled         INTEGER NOT NULL,
    scheduled_bytes   INTEGER NOT NULL
) STRICT;

-- Small columns come first, so that counts and lists never read the pages of the bodies.
CREATE TABLE queue_messages (
    queue_id        INTEGER NOT NULL,
    msg_offset      INTEGER NOT NULL, -- from 1 in each queue
    priority        INTEGER NOT NULL,
    published_at_ms INTEGER NOT NULL,
    expires_at_ms   INTEGER,
    size_bytes      INTEGER NOT NULL, -- head and body before compression
    stored_bytes    INTEGER NOT NULL,
    message_id      TEXT NOT NULL,
    message_key     BLOB,
    head            TEXT NOT NULL, -- JSON: attributes and headers
    body            BLOB NOT NULL,
    PRIMARY KEY (queue_id, msg_offset)
) STRICT;
-- Claims walk it: the highest priority first, then the oldest.
CREATE INDEX queue_messages_by_priority ON queue_messages (queue_id, priority, msg_offset);
CREATE INDEX queue_messages_by_id       ON queue_messages (queue_id, substr(message_id, 1, 200));
CREATE INDEX queue_messages_expiring    ON queue_messages (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- Messages that wait for their time. When it has come they move to queue_messages.
CREATE TABLE queue_scheduled (
    scheduled_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id        INTEGER NOT NULL,
    deliver_at_ms   INTEGER NOT NULL,
    priority        INTEGER NOT NULL,
    expires_at_ms   INTEGER,
    size_bytes      INTEGER NOT NULL,
    stored_bytes    INTEGER NOT NULL,
    message_id      TEXT NOT NULL,
    message_key     BLOB,
    head            TEXT NOT NULL,
    body            BLOB NOT NULL
) STRICT;
CREATE INDEX queue_scheduled_due   ON queue_scheduled (deliver_at_ms, scheduled_id);
CREATE INDEX queue_scheduled_list  ON queue_scheduled (queue_id, deliver_at_ms, scheduled_id);
CREATE INDEX queue_scheduled_by_id ON queue_scheduled (queue_id, substr(message_id, 1, 200));

CREATE TABLE queue_groups (
    group_id         INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id         INTEGER NOT NULL,
    name             TEXT NOT NULL,
    is_paused        INTEGER NOT NULL,
    generation       INTEGER NOT NULL, -- one more with each reset: settlements of before do nothing
    cursors          TEXT NOT NULL, -- for each priority, 0 first, the offset up to which messages have been looked at
    lost             INTEGER NOT NULL,
    expired          INTEGER NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    last_activity_ms INTEGER NOT NULL,
    UNIQUE (queue_id, name)
) STRICT;

-- What a group has been given and has not settled, and what it has passed but waits for another of its key.
CREATE TABLE queue_claims (
    group_id      INTEGER NOT NULL,
    msg_offset    INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    priority      INTEGER NOT NULL,
    attempt       INTEGER NOT NULL, -- 0: never given out
    not_before_ms INTEGER NOT NULL,
    is_blocked    INTEGER NOT NULL, -- 1 while a message of the same lane is before it
    lane          INTEGER,          -- in ordered queues: hash of the key; NULL without one
    consumer      TEXT,         -- who has it; NULL while nobody has
    owner         TEXT,         -- the gateway of the consumer
    PRIMARY KEY (group_id, msg_offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_claims_ready ON queue_claims (group_id, priority DESC, msg_offset)
    WHERE consumer IS NULL AND is_blocked = 0;
CREATE INDEX queue_claims_lanes ON queue_claims (group_id, lane, msg_offset) WHERE lane IS NOT NULL;
CREATE INDEX queue_claims_owned ON queue_claims (owner) WHERE owner IS NOT NULL;

CREATE TABLE queue_consumers (
    consumer     TEXT NOT NULL PRIMARY KEY,
    group_id     INTEGER NOT NULL,
    owner        TEXT NOT NULL,
    joined_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_consumers_by_group ON queue_consumers (group_id);
CREATE INDEX queue_consumers_owned    ON queue_consumers (owner);
