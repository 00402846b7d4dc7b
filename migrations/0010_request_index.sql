-- no-transaction
-- A snapshot saved without precondition is found again by its request_id. Every such save writes an
-- entry, which takes 28 bytes of a page here and 44 with both ids. Saves go on while it is made.
CREATE INDEX CONCURRENTLY IF NOT EXISTS revisions_repeated
ON revisions (bucket, request_place(session_id, request_id)) WHERE unconditional;
