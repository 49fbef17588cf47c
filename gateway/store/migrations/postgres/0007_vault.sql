-- Keys of bodies, a row for each version of each tenant's, wrapped by the master key, which is not here. The newest
-- version seals; older ones stay for what they sealed.
CREATE TABLE data_keys (
    tenant        TEXT COLLATE "C" NOT NULL,
    version       BIGINT           NOT NULL,
    wrapped       BYTEA            NOT NULL,
    created_at_ms BIGINT           NOT NULL,
    retired_at_ms BIGINT,                    -- since when it seals nothing any more
    PRIMARY KEY (tenant, version)
);

-- Tells the right master key from a wrong one before anything is written. No row: bodies are not encrypted.
CREATE TABLE master_key (
    id          BIGINT           NOT NULL PRIMARY KEY CHECK (id = 1),
    fingerprint TEXT COLLATE "C" NOT NULL,
    proof       BYTEA            NOT NULL, -- a constant, encrypted with the master key
    since_ms    BIGINT           NOT NULL
);

-- How original_body and failing_body are kept: NULL as they came, 1 in the form that says by itself how, 2 the failing
-- one in that form and the other as it came. edited_body is always in that form.
ALTER TABLE dead_letters ADD COLUMN body_format BIGINT;
