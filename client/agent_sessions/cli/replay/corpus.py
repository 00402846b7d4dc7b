"""Recorded conversations: found, checked and counted before anything is saved, then read one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_sessions.cli.failures import usage
from agent_sessions.cli.json_input import json_lines

_PATTERNS = ("*.jsonl.gz", "*.jsonl")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a file, under the names it is replayed to."""

    agent_id: str
    session_name: str
    messages: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Names:
    """How names of the files become names on the server."""

    agent_prefix: str = ""
    session_suffix: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files whose every line has been checked."""

    files: Sequence[str]
    names: Names
    conversation_count: int
    message_count: int

    def __iter__(self) -> Iterator[Conversation]:
        for _, conversation in _read(self.files, self.names):
            yield conversation


def read_corpus(sources: Sequence[str], names: Names) -> Corpus:
    """Read everything once; raises CommandFailed naming file and line where something cannot be used."""
    files = [file for source in sources for file in _files(source)]
    places: dict[tuple[str, str], str] = {}
    messages = 0
    for place, conversation in _read(files, names):
        key = (conversation.agent_id, conversation.session_name)
        if key in places:
            raise usage(f"{place}: agents/{key[0]}/sessions/{key[1]} is in {places[key]}, too")
        places[key] = place
        messages += len(conversation.messages)
    if not places:
        raise usage(f"{', '.join(sources)}: no conversation in there")
    return Corpus(files, names, len(places), messages)


def _files(source: str) -> list[str]:
    path = Path(source)
    if not path.is_dir():
        return [source]
    found = sorted({str(file) for pattern in _PATTERNS for file in path.rglob(pattern)})
    if not found:
        raise usage(f"{source}: no {' or '.join(_PATTERNS)} in this folder")
    return found


def _read(files: Sequence[str], names: Names) -> Iterator[tuple[str, Conversation]]:
    for file in files:
        for number, line in json_lines(file):
            place = f"{file}, line {number}"
            yield place, _conversation(line, names, place)


def _conversation(line: dict[str, Any], names: Names, place: str) -> Conversation:
    agent_id, session_name, messages = (line.get(key) for key in ("agent_id", "session_name", "messages"))
    if not (isinstance(agent_id, str) and agent_id and isinstance(session_name, str) and session_name):
        raise usage(f"{place}: agent_id and session_name are strings that are not empty")
    if not (isinstance(messages, list) and messages and all(isinstance(message, dict) for message in messages)):
        raise usage(f"{place}: messages is a list of at least one object")
    return Conversation(names.agent_prefix + agent_id, session_name + names.session_suffix, messages)
