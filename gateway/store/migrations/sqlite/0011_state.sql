-- Key-value state of plugins. `realm` is the tenant, or empty for the operator's plugins.
CREATE TABLE plugin_state (
    realm         TEXT    NOT NULL,
    plugin        TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    value         BLOB    NOT NULL, -- in the form of bodies
    size_bytes    INTEGER NOT NULL, -- what it counts against the space's limit
    expires_at_ms INTEGER,
    PRIMARY KEY (realm, plugin, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX plugin_state_by_expiry ON plugin_state (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- What each plugin's values come to: a change of a value changes its space in the same transaction.
CREATE TABLE plugin_state_spaces (
    realm      TEXT    NOT NULL,
    plugin     TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (realm, plugin)
) STRICT, WITHOUT ROWID;
