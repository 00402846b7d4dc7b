"""Ids that the service takes for UUIDs."""

import uuid

from agent_sessions.request_ids import new_request_id


def test_ids_are_random_uuids_in_canonical_form() -> None:
    ids = [new_request_id() for _ in range(1000)]
    parsed = [uuid.UUID(request_id) for request_id in ids]
    assert ids == [str(found) for found in parsed]
    assert {(found.version, found.variant) for found in parsed} == {(4, uuid.RFC_4122)}
    assert len({*ids}) == 1000
    for place in (place for place in range(36) if place not in (8, 13, 14, 18, 19, 23)):
        assert len({request_id[place] for request_id in ids}) == 16
    assert {request_id[19] for request_id in ids} == {*"89ab"}
