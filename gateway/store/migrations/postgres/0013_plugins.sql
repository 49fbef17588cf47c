-- Uploaded components, each kept once whoever uploaded it.
CREATE TABLE plugin_components (
    digest        TEXT COLLATE "C"    NOT NULL PRIMARY KEY, -- sha256:…
    bytes         BYTEA    NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- A plugin under its full name (TENANT/NAME), and which of its versions run. Locked by whoever changes either.
CREATE TABLE plugins (
    name          TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
    last_version  BIGINT NOT NULL,
    current       BIGINT,          -- NULL: none was rolled out yet
    candidate     BIGINT,          -- runs besides, as mode says
    mode          TEXT COLLATE "C"    NOT NULL, -- all, percent, shadow
    percent       BIGINT NOT NULL, -- of the messages that the candidate gets in mode percent
    earlier       TEXT COLLATE "C"    NOT NULL, -- JSON: versions that were current before, oldest first
    revision      BIGINT NOT NULL,
    changed_at_ms BIGINT NOT NULL
);

CREATE TABLE plugin_versions (
    plugin        TEXT COLLATE "C"    NOT NULL,
    version       BIGINT NOT NULL,
    digest        TEXT COLLATE "C"    NOT NULL,
    size_bytes    BIGINT NOT NULL,
    roles         TEXT COLLATE "C"    NOT NULL, -- JSON
    imports       TEXT COLLATE "C"    NOT NULL, -- JSON
    config_schema TEXT COLLATE "C"    NOT NULL, -- JSON
    report        TEXT COLLATE "C",             -- JSON, of the last certification
    state         TEXT COLLATE "C"    NOT NULL, -- uploaded, certified, refused, retired, quarantined
    reason        TEXT COLLATE "C",             -- why it is in that state
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C"    NOT NULL,
    PRIMARY KEY (plugin, version)
);
CREATE INDEX plugin_versions_by_digest ON plugin_versions (digest);

-- What happened to rollouts, the newest of each plugin.
CREATE TABLE plugin_events (
    plugin   TEXT COLLATE "C"    NOT NULL,
    revision BIGINT NOT NULL, -- of the rollout afterwards
    at_ms    BIGINT NOT NULL,
    by_whom  TEXT COLLATE "C"    NOT NULL,
    what     TEXT COLLATE "C"    NOT NULL,
    PRIMARY KEY (plugin, revision)
);
