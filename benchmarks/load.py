"""Saves conversations message by message, and checks what comes back."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.corpus import Conversation, encode
from benchmarks.stores.base import Store

ALL_MESSAGES = slice(None)
WARM_UP_SESSIONS = 20
"""Enough to have every connection of a pool used once."""


class Different(Exception):
    """What a store gave back is not what was saved. The message names session and message."""


@dataclass(frozen=True)
class Saved:
    """How saving went."""

    began: float
    """time.monotonic(), which the processes of one machine share."""
    ended: float
    latencies: list[float]
    """Of each save, in seconds."""


@dataclass(frozen=True)
class Restored:
    """How restoring went; everything was equal."""

    latencies: list[float]
    """Of each session, in seconds, objects included."""
    messages: int
    """That were compared."""


async def save(
    store: Store, conversations: Sequence[Conversation], in_flight: int, part: slice = ALL_MESSAGES
) -> Saved:
    """Save after every message, `in_flight` sessions at once, each one message after another.

    More than one at once: the longest first, so that few run alone at the end.
    """
    if in_flight > 1:
        conversations = sorted(conversations, key=lambda one: len(one.messages), reverse=True)
    waiting, latencies = iter(conversations), list[float]()
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(_save_next(store, waiting, part, latencies))
    return Saved(began, time.monotonic(), latencies)


async def _save_next(store: Store, waiting: Iterator[Conversation], part: slice, latencies: list[float]) -> None:
    for conversation in waiting:
        for index in range(len(conversation.messages))[part]:
            begin = time.perf_counter()
            await store.save(conversation, index)
            latencies.append(time.perf_counter() - begin)


async def warm_up(store: Store, name: str) -> None:
    """Save a few small sessions under new names: connections, prepared statements and imports are made by then."""
    messages = [encode({"role": "user", "content": f"warm-up {index}"}) for index in range(3)]
    sessions = [Conversation("warm-up", f"{name}-{index}", messages) for index in range(WARM_UP_SESSIONS)]
    await save(store, sessions, WARM_UP_SESSIONS)
    await restore(store, sessions[:1])


async def restore(store: Store, conversations: Sequence[Conversation]) -> Restored:
    """Restore one after another; raises Different at the first message that is not as saved."""
    latencies, messages = [], 0
    for conversation in conversations:
        begin = time.perf_counter()
        found = await store.restore(conversation)
        latencies.append(time.perf_counter() - begin)
        compare(conversation, found)
        messages += len(found)
    return Restored(latencies, messages)


async def compare_revisions(store: Any, conversations: Sequence[Conversation]) -> int:
    """Read every revision of sessions that were saved message by message; raises Different; returns how many.

    `store` is one of ours: the others have none.
    """
    count = 0
    for conversation in conversations:
        for end in range(1, len(conversation.messages) + 1):
            saved = replace(conversation, messages=conversation.messages[:end])
            compare(saved, await store.revision(saved, end))
            count += 1
    return count


def compare(conversation: Conversation, found: Sequence[Any]) -> None:
    """Raise Different unless `found` equals the conversation's messages."""
    place = f"{conversation.agent_id}/{conversation.session_name}"
    if len(found) != len(conversation.messages):
        raise Different(f"{place}: {len(conversation.messages)} messages were saved, {len(found)} came back")
    for index, (saved, back) in enumerate(zip(conversation.messages, found, strict=True)):
        if saved.value != back:
            raise Different(f"{place}: message {index} came back as {back!r:.200}, saved was {saved.value!r:.200}")
