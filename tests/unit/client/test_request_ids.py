"""Ids that the service takes for UUIDs."""

import os
import uuid

import pytest
from agent_sessions import request_ids
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


def test_a_fork_while_ids_are_made_shares_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal's handler may fork."""
    monkeypatch.setattr(request_ids, "_made", [])
    make, reader, writer = request_ids._make, *os.pipe()
    child: list[int] = []

    def forking() -> list[str]:
        made = make()
        if not child:
            child.append(os.fork())
        return made

    monkeypatch.setattr(request_ids, "_make", forking)
    ids = {new_request_id() for _ in range(200)}  # the first one is under way meanwhile
    if child == [0]:
        os.write(writer, "".join(ids).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child[0], 0)
    assert len(text) == 200 * 36
    assert ids.isdisjoint(text[start : start + 36] for start in range(0, len(text), 36))
