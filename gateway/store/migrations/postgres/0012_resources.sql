-- What tenants have made: pipelines, subscriptions, schemas, routes, as they wrote them.
CREATE TABLE resources (
    tenant        TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    revision      BIGINT NOT NULL, -- from 1, one more with each change
    is_paused     BIGINT NOT NULL,
    document      TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, name)
);

-- Every revision there was, of what was deleted, too.
CREATE TABLE resource_history (
    seq       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant    TEXT COLLATE "C" NOT NULL,
    kind      TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    revision  BIGINT NOT NULL,
    change    TEXT COLLATE "C" NOT NULL, -- created, updated, paused, resumed, deleted
    document  TEXT COLLATE "C" NOT NULL,
    at_ms     BIGINT NOT NULL,
    by_whom   TEXT COLLATE "C" NOT NULL
);
CREATE INDEX resource_history_of ON resource_history (tenant, kind, name, seq);
