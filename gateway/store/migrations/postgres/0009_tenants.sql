-- Tenants, the keys that callers show, and the audit. Names of a tenant's own things begin with its name and a slash.
CREATE TABLE tenants (
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    display       TEXT COLLATE "C" NOT NULL,
    is_suspended  BIGINT           NOT NULL,
    revision      BIGINT           NOT NULL, -- one more with each change
    quotas        TEXT COLLATE "C" NOT NULL, -- JSON
    grants        TEXT COLLATE "C" NOT NULL, -- JSON: what of the operator's it may use
    created_at_ms BIGINT           NOT NULL,
    updated_at_ms BIGINT           NOT NULL
);

-- Of a key's secret there is its SHA-256 only.
CREATE TABLE api_keys (
    prefix            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- public: finds the key, names it in lists and logs
    tenant            TEXT COLLATE "C",                      -- NULL: the operator's
    name              TEXT COLLATE "C" NOT NULL,             -- for people
    hash              BYTEA            NOT NULL,
    previous_hash     BYTEA,                                 -- of before the last rotation
    previous_until_ms BIGINT,                                -- and until when it is good
    scopes            TEXT COLLATE "C" NOT NULL,             -- with spaces between
    revision          BIGINT           NOT NULL,             -- one more with each change but use
    created_at_ms     BIGINT           NOT NULL,
    updated_at_ms     BIGINT           NOT NULL,
    rotated_at_ms     BIGINT,
    expires_at_ms     BIGINT,
    revoked_at_ms     BIGINT,
    last_used_ms      BIGINT                                 -- to the minute
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, prefix);

-- Who changed or was denied what. Rows are only ever added, and removed when they are old.
CREATE TABLE audit (
    seq      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms    BIGINT           NOT NULL,
    actor    TEXT COLLATE "C" NOT NULL,
    tenant   TEXT COLLATE "C",                -- whose it is; NULL: the operator's
    action   TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    before   TEXT COLLATE "C",                -- JSON
    after    TEXT COLLATE "C",                -- JSON
    outcome  TEXT COLLATE "C" NOT NULL,
    address  TEXT COLLATE "C",
    repeats  BIGINT           NOT NULL        -- how many more of the same this stands for
);
CREATE INDEX audit_by_tenant ON audit (tenant, seq);
CREATE INDEX audit_by_time   ON audit (at_ms);
CREATE FUNCTION sluicegate_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
    FOR EACH ROW EXECUTE FUNCTION sluicegate_audit_is_append_only();
