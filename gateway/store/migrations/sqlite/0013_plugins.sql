-- Uploaded components, each kept once whoever uploaded it.
CREATE TABLE plugin_components (
    digest        TEXT    NOT NULL PRIMARY KEY, -- sha256:…
    bytes         BLOB    NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- A plugin under its full name (TENANT/NAME), and which of its versions run. Locked by whoever changes either.
CREATE TABLE plugins (
    name          TEXT    NOT NULL PRIMARY KEY,
    last_version  INTEGER NOT NULL,
    current       INTEGER,          -- NULL: none was rolled out yet
    candidate     INTEGER,          -- runs besides, as mode says
    mode          TEXT    NOT NULL, -- all, percent, shadow
    percent       INTEGER NOT NULL, -- of the messages that the candidate gets in mode percent
    earlier       TEXT    NOT NULL, -- JSON: versions that were current before, oldest first
    revision      INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE plugin_versions (
    plugin        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    digest        TEXT    NOT NULL,
    size_bytes    INTEGER NOT NULL,
    roles         TEXT    NOT NULL, -- JSON
    imports       TEXT    NOT NULL, -- JSON
    config_schema TEXT    NOT NULL, -- JSON
    report        TEXT,             -- JSON, of the last certification
    state         TEXT    NOT NULL, -- uploaded, certified, refused, retired, quarantined
    reason        TEXT,             -- why it is in that state
    created_at_ms INTEGER NOT NULL,
    created_by    TEXT    NOT NULL,
    PRIMARY KEY (plugin, version)
) STRICT;
CREATE INDEX plugin_versions_by_digest ON plugin_versions (digest);

-- What happened to rollouts, the newest of each plugin.
CREATE TABLE plugin_events (
    plugin   TEXT    NOT NULL,
    revision INTEGER NOT NULL, -- of the rollout afterwards
    at_ms    INTEGER NOT NULL,
    by_whom  TEXT    NOT NULL,
    what     TEXT    NOT NULL,
    PRIMARY KEY (plugin, revision)
) STRICT;
