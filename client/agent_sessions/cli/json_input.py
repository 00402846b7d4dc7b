"""Input files: JSON lines, plain or gzip, and states in protobuf JSON. Errors name the file and the line."""

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from google.protobuf.json_format import Parse, ParseError

from agent_sessions.cli.failures import usage
from agent_sessions.v1.session_pb2 import AgentState

STDIN = "-"


def json_lines(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number and object; empty lines are passed over.

    A source that ends in .gz is read as gzip; `-` is the standard input.
    """
    number = 0
    try:
        with _opened(source) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line, source, number)
    except (gzip.BadGzipFile, EOFError, zlib.error) as broken:
        raise usage(f"{source}, line {number + 1}: damaged gzip data: {broken}") from broken
    except OSError as failed:
        raise usage(f"{source}: {failed.strerror or failed}") from failed


def read_state(source: str) -> AgentState:
    """Read an AgentState in protobuf JSON, as `restore --file` writes it."""
    try:
        with _opened(source) as stream:
            return Parse(stream.read().decode(), AgentState())
    except OSError as failed:
        raise usage(f"{source}: {failed.strerror or failed}") from failed
    except (ParseError, ValueError, RecursionError) as broken:
        raise usage(f"{source}: not an AgentState in protobuf JSON: {broken}") from broken


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == STDIN:
        yield sys.stdin.buffer
    elif source.endswith(".gz"):
        with gzip.open(source, "rb") as unpacked:
            yield cast(IO[bytes], unpacked)
    else:
        with Path(source).open("rb") as plain:
            yield plain


def _object(line: bytes, source: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as broken:
        raise usage(f"{source}, line {number}: not JSON: {broken}") from broken
    if not isinstance(value, dict):
        raise usage(f"{source}, line {number}: an object is expected, not {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
