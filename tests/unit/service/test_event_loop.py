import asyncio
import importlib.util

import pytest
import uvloop
from session_service import event_loop


@pytest.mark.parametrize(
    ("name", "is_installed", "made"),
    [
        ("auto", True, uvloop.new_event_loop),
        ("auto", False, asyncio.new_event_loop),
        ("uvloop", True, uvloop.new_event_loop),
        ("asyncio", True, asyncio.new_event_loop),
    ],
)
def test_the_loop_is_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch, name: str, is_installed: bool, made: object
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if is_installed else None)
    assert event_loop.factory(name) is made


def test_one_that_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(event_loop.NoSuchLoop, match=r"--event-loop.*pip install agent-session-service\[uvloop\]"):
        event_loop.factory("uvloop")
