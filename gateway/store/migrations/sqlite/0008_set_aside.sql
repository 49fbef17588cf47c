-- What cannot be opened is set aside: in queue_claims with is_blocked = 2, in inbox with leads = 2, timed = 1 and no
-- key_hash. It stays what it is and holds up nothing; not_before_ms and ready_at_ms say when it is tried again.
CREATE INDEX queue_claims_set_aside ON queue_claims (not_before_ms) WHERE is_blocked = 2;
