-- Gateways that are running: with a file of its own there is one, and a row left behind tells whose claims to release.
CREATE TABLE gateways (
    id         TEXT    NOT NULL PRIMARY KEY,
    seen_at_ms INTEGER NOT NULL
) STRICT;
