-- Gateways that are running. One not seen for the lease term is dead, and what it had claimed is released.
CREATE TABLE gateways (
    id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    seen_at_ms BIGINT NOT NULL
);
