-- Tenants, the keys that callers show, and the audit. Names of a tenant's own things begin with its name and a slash.
CREATE TABLE tenants (
    name          TEXT    NOT NULL PRIMARY KEY,
    display       TEXT    NOT NULL,
    is_suspended  INTEGER NOT NULL,
    revision      INTEGER NOT NULL, -- one more with each change
    quotas        TEXT    NOT NULL, -- JSON
    grants        TEXT    NOT NULL, -- JSON: what of the operator's it may use
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

-- Of a key's secret there is its SHA-256 only.
CREATE TABLE api_keys (
    prefix            TEXT    NOT NULL PRIMARY KEY, -- public: finds the key, names it in lists and logs
    tenant            TEXT,                         -- NULL: the operator's
    name              TEXT    NOT NULL,             -- for people
    hash              BLOB    NOT NULL,
    previous_hash     BLOB,                         -- of before the last rotation
    previous_until_ms INTEGER,                      -- and until when it is good
    scopes            TEXT    NOT NULL,             -- with spaces between
    revision          INTEGER NOT NULL,             -- one more with each change but use
    created_at_ms     INTEGER NOT NULL,
    updated_at_ms     INTEGER NOT NULL,
    rotated_at_ms     INTEGER,
    expires_at_ms     INTEGER,
    revoked_at_ms     INTEGER,
    last_used_ms      INTEGER                       -- to the minute
) STRICT;
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, prefix);

-- Who changed or was denied what. Rows are only ever added, and removed when they are old.
CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms    INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    tenant   TEXT,                -- whose it is; NULL: the operator's
    action   TEXT    NOT NULL,
    resource TEXT    NOT NULL,
    before   TEXT,                -- JSON
    after    TEXT,                -- JSON
    outcome  TEXT    NOT NULL,
    address  TEXT,
    repeats  INTEGER NOT NULL     -- how many more of the same this stands for
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant, seq);
CREATE INDEX audit_by_time   ON audit (at_ms);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
