-- Where an index of requests has one: first by its session, so that what belongs together stays together.
-- Eight bytes, where both ids have 24; whatever reads by it compares the ids as well.
--
-- COST keeps the planner from reading all rows of a bucket, which seem to be few while there are no
-- statistics, or some of very few rows: each of them would need a call. 1000 is not enough where one
-- row was analyzed. An SQL function would be inlined, and lose its cost.
CREATE FUNCTION request_place(session_id bigint, request_id uuid) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
BEGIN
    RETURN ((session_id & 2147483647) << 32) | (uuid_hash(request_id)::bigint & 4294967295);
END $$;

-- At once, and not with all other rights after the last migration: whoever saves needs it as soon as there is the index.
GRANT EXECUTE ON FUNCTION request_place(bigint, uuid) TO PUBLIC;
