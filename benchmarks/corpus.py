"""Conversations to save: recorded ones from a folder, and made ones of equal messages."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

WORDS = (
    "the",
    "agent",
    "reads",
    "a",
    "file",
    "and",
    "runs",
    "tests",
    "then",
    "edits",
    "code",
    "or",
    "asks",
    "why",
    "it",
    "failed",
)


@dataclass(frozen=True, eq=False)
class Message:
    """One message: as an object, and encoded once for everyone who stores bytes or text. Hashed by identity."""

    value: dict[str, Any]
    data: bytes

    @cached_property
    def text(self) -> str:
        """The encoded message as text."""
        return self.data.decode()


@dataclass(frozen=True)
class Conversation:
    """What is saved message by message under one name."""

    agent_id: str
    session_name: str
    messages: Sequence[Message]

    @property
    def size(self) -> int:
        """Bytes of its messages; every `× payload` refers to this."""
        return sum(len(message.data) for message in self.messages)

    def renamed(self, suffix: str) -> "Conversation":
        """Return the same conversation as another session."""
        return replace(self, session_name=self.session_name + suffix)


def encode(value: dict[str, Any]) -> Message:
    """Return the message with its JSON, in UTF-8 and without spaces, as the client library writes it."""
    return Message(value, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def load(file: Path, limit: int = 0) -> list[Conversation]:
    """Read JSON lines with agent_id, session_name and messages; the first `limit` of them, 0: all."""
    found: list[Conversation] = []
    for line in _lines(file):
        if limit and len(found) == limit:
            break
        messages = [encode(value) for value in line["messages"]]
        found.append(Conversation(line["agent_id"], line["session_name"], messages))
    return found


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        yield from (json.loads(line) for line in lines)


def share(conversations: Sequence[Conversation], part: int, parts: int) -> list[Conversation]:
    """Return one of `parts` shares with about equally many messages each."""
    shares: list[list[Conversation]] = [[] for _ in range(parts)]
    lengths = [0] * parts
    for conversation in sorted(conversations, key=lambda one: len(one.messages), reverse=True):
        shortest = lengths.index(min(lengths))
        shares[shortest].append(conversation)
        lengths[shortest] += len(conversation.messages)
    return shares[part]


def synthetic(message_count: int, message_bytes: int, session_messages: int, seed: int) -> list[Conversation]:
    """Return conversations of `message_count` messages together, each message of the same size.

    Words in random order: they compress about as text does, and equal seeds give equal bytes.
    """
    chance = random.Random(seed)  # noqa: S311 - test data, no secret
    found: list[Conversation] = []
    for start in range(0, message_count, session_messages):
        length = min(session_messages, message_count - start)
        messages = [_made_message(chance, message_bytes) for _ in range(length)]
        found.append(Conversation("synthetic", f"session-{seed}-{start}", messages))
    return found


def _made_message(chance: random.Random, size: int) -> Message:
    frame = len(encode({"role": "user", "content": ""}).data)
    content = " ".join(chance.choices(WORDS, k=size // 3))[: size - frame]
    return encode({"role": "user", "content": content.ljust(size - frame, ".")})
