-- Key-value state of plugins. `realm` is the tenant, or empty for the operator's plugins.
CREATE TABLE plugin_state (
    realm         TEXT COLLATE "C" NOT NULL,
    plugin        TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C" NOT NULL,
    value         BYTEA            NOT NULL, -- in the form of bodies
    size_bytes    BIGINT           NOT NULL, -- what it counts against the space's limit
    expires_at_ms BIGINT,
    PRIMARY KEY (realm, plugin, key)
);

CREATE INDEX plugin_state_by_expiry ON plugin_state (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- What each plugin's values come to: a change of a value changes its space in the same transaction.
CREATE TABLE plugin_state_spaces (
    realm      TEXT COLLATE "C" NOT NULL,
    plugin     TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT           NOT NULL,
    PRIMARY KEY (realm, plugin)
);
