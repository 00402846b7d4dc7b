-- no-transaction
-- A snapshot saved without precondition is found again by its request_id. Four bytes of
-- a hash find it as well as all sixteen, and the index, which every such save writes,
-- takes two thirds of the room. Saves go on while it is made.
CREATE INDEX CONCURRENTLY IF NOT EXISTS revisions_request_hash ON revisions (bucket, uuid_hash(request_id), session_id)
WHERE unconditional;
