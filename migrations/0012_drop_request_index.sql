-- no-transaction
-- save_sessions_v1, of the release before the previous one, finds repeats by the primary key from now on: slower, as right.
DROP INDEX CONCURRENTLY IF EXISTS revisions_request;
