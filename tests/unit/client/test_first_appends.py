"""Requests by which a session was to begin, remembered while one of them may have done so."""

import time
from typing import Any, cast

import pytest
from agent_sessions import InvalidField, ResourceExhausted, RevisionMismatch, SessionDeleted
from agent_sessions.first_appends import FirstAppends
from agent_sessions.saver import Saver


class ScriptedSaver:
    """Ends each request as the script says; what it says nothing of is known."""

    def __init__(self, **script: Exception) -> None:
        self.script = script
        self.asked: list[str] = []

    async def save(self, _: bytes, request_id: str, __: float) -> object:
        self.asked.append(request_id)
        if request_id in self.script:
            raise self.script[request_id]
        return object()


async def ask(first: FirstAppends, saver: ScriptedSaver) -> bool:
    return await first.made_the_session(cast("Saver", saver), time.monotonic() + 5)


def remembered(first: FirstAppends) -> list[Any]:
    return first._raised


async def test_the_one_that_the_server_knows_made_the_session() -> None:
    first = FirstAppends()
    for name in "abc":
        first.failed(b"data", name)
    saver = ScriptedSaver(a=RevisionMismatch("no"))
    assert await ask(first, saver)
    assert saver.asked == ["a", "b"]
    assert await ask(first, saver), "as long as nothing was acknowledged"
    assert saver.asked == ["a", "b", "b"], "what was refused is not asked for again"


async def test_none_made_it() -> None:
    first = FirstAppends()
    for name in "abc":
        first.failed(b"data", name)
    saver = ScriptedSaver(a=RevisionMismatch("no"), b=InvalidField("no"), c=SessionDeleted("no"))
    assert not await ask(first, saver)
    assert not await ask(first, saver)
    assert saver.asked == ["a", "b", "c"]


async def test_what_cannot_be_told_is_raised_and_asked_for_again() -> None:
    first = FirstAppends()
    first.failed(b"data", "a")
    saver = ScriptedSaver(a=ResourceExhausted("later"))
    for _ in range(2):
        with pytest.raises(ResourceExhausted):
            await ask(first, saver)
    assert saver.asked == ["a", "a"]


def test_so_many_are_kept_the_first_and_the_last_among_them() -> None:
    first = FirstAppends()
    for number in range(1000):
        first.failed(b"data", str(number))
    kept = [request_id for _, request_id in remembered(first)]
    assert len(kept) == 16
    assert kept[:8] == [*"01234567"]
    assert kept[-8:] == [str(number) for number in range(992, 1000)]


def test_so_many_bytes_are_kept() -> None:
    first = FirstAppends()
    for number in range(12):
        first.failed(bytes(3 << 20), str(number))
    kept = [request_id for _, request_id in remembered(first)]
    assert len(kept) == 5
    assert (kept[0], kept[-1]) == ("0", "11")
    first.forget()
    assert remembered(first) == []
    for number in range(16):
        first.failed(bytes(1 << 20), str(number))
    assert len(remembered(first)) == 16
