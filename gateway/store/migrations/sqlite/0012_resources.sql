-- What tenants have made: pipelines, subscriptions, schemas, routes, as they wrote them.
CREATE TABLE resources (
    tenant        TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    revision      INTEGER NOT NULL, -- from 1, one more with each change
    is_paused     INTEGER NOT NULL,
    document      TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) STRICT, WITHOUT ROWID;

-- Every revision there was, of what was deleted, too.
CREATE TABLE resource_history (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    revision  INTEGER NOT NULL,
    change    TEXT    NOT NULL, -- created, updated, paused, resumed, deleted
    document  TEXT    NOT NULL,
    at_ms     INTEGER NOT NULL,
    by_whom   TEXT    NOT NULL
) STRICT;
CREATE INDEX resource_history_of ON resource_history (tenant, kind, name, seq);
