"""The contract: its form, its comments, and that what was released never changes."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from tests.fixtures.tools import require_tool

PROTOS = Path(__file__).parents[2] / "protos"
RELEASED = PROTOS / "released.binpb"
"""The protos of the last release, by `buf build protos -o protos/released.binpb`."""


@pytest.fixture(scope="module")
def buf() -> Path:
    return require_tool("buf")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the protos that may be changed."""
    return Path(shutil.copytree(PROTOS, tmp_path / "protos"))


def run(buf: Path, *words: str | Path, at: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([buf, *words], cwd=at, capture_output=True, text=True, timeout=60, check=False)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


# ---- form


def test_lint(buf: Path) -> None:
    done = run(buf, "lint", at=PROTOS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lint_can_fail(buf: Path, copy: Path) -> None:
    change(copy / "agent_sessions/v1/session.proto", "message AuthContext {", "message auth_context {")
    change(
        copy / "agent_sessions/v1/session.proto", "  AuthContext auth_context = 6;", "  auth_context auth_context = 6;"
    )
    change(
        copy / "agent_sessions/v1/session.proto", "  AuthContext auth_context = 9;", "  auth_context auth_context = 9;"
    )
    assert "PascalCase" in run(buf, "lint", at=copy).stdout


def test_format(buf: Path) -> None:
    done = run(buf, "format", "-d", "--exit-code", at=PROTOS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_format_can_fail(buf: Path, copy: Path) -> None:
    change(copy / "agent_sessions/v1/session.proto", "  string llm_provider = 5;", " string llm_provider=5;")
    assert run(buf, "format", "-d", "--exit-code", at=copy).returncode != 0


# ---- what was released


def test_nothing_released_has_changed(buf: Path) -> None:
    done = run(buf, "breaking", "--against", RELEASED, at=PROTOS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("session.proto", "string llm_provider = 5;", "string llm_provider = 15;", '"5" with name "llm_provider"'),
        ("session.proto", "string llm_provider = 5;", "bytes llm_provider = 5;", "changed type"),
        ("session.proto", "LOOP_STATE_STOPPED = 5;", "LOOP_STATE_STOPPED = 6;", 'value "5" on enum "LoopState"'),
        ("session_service.proto", "rpc GetSession(", "rpc ReadSession(", '"GetSession"'),
    ],
)
def test_a_change_of_what_was_released_is_refused(
    buf: Path, copy: Path, file: str, old: str, new: str, told: str
) -> None:
    change(copy / "agent_sessions/v1" / file, old, new)
    done = run(buf, "breaking", "--against", RELEASED, at=copy)
    assert done.returncode != 0
    assert told in done.stdout


def test_an_addition_is_allowed(buf: Path, copy: Path) -> None:
    added = "string llm_provider = 5;\n  // New.\n  string added = 100;"
    change(copy / "agent_sessions/v1/session.proto", "string llm_provider = 5;", added)
    assert run(buf, "breaking", "--against", RELEASED, at=copy).returncode == 0


# ---- comments


def test_everything_has_a_comment(buf: Path, tmp_path: Path) -> None:
    files = built(buf, PROTOS, tmp_path)
    assert [name for file in files for name in uncommented(file)] == []
    assert sum(1 for file in files for _ in elements(file)) > 100


def test_a_missing_comment_is_found(buf: Path, copy: Path, tmp_path: Path) -> None:
    change(copy / "agent_sessions/v1/session.proto", "  // A person.\n", "")
    missing = [name for file in built(buf, copy, tmp_path) for name in uncommented(file)]
    assert missing == ["session.proto: Role.ROLE_USER"]


def built(buf: Path, protos: Path, tmp_path: Path) -> list[FileDescriptorProto]:
    """Return the project's own files, with their source information."""
    image = tmp_path / "image.binpb"
    done = run(buf, "build", "-o", image, at=protos)
    assert done.returncode == 0, done.stderr
    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return [file for file in files if file.package.startswith("agent_sessions")]


def uncommented(file: FileDescriptorProto) -> Iterator[str]:
    """Yield what has no comment before it."""
    comments = {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
    for path, name in elements(file):
        if not comments.get(path):
            yield f"{Path(file.name).name}: {name}"


def elements(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield every message, field, oneof, enum, enum value, service and RPC with its path in the source information."""
    for index, message in enumerate(file.message_type):
        yield from _of_message(message, (4, index), message.name)
    for index, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, (5, index), enum.name)
    for index, service in enumerate(file.service):
        yield (6, index), service.name
        for place, method in enumerate(service.method):
            yield (6, index, 2, place), f"{service.name}.{method.name}"


def _of_message(message: DescriptorProto, path: tuple[int, ...], name: str) -> Iterator[tuple[tuple[int, ...], str]]:
    if message.options.map_entry:
        return  # written as a map field
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, 2, index), f"{name}.{field.name}"
    synthetic = {field.oneof_index for field in message.field if field.proto3_optional}
    for index, oneof in enumerate(message.oneof_decl):
        if index not in synthetic:
            yield (*path, 8, index), f"{name}.{oneof.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _of_message(nested, (*path, 3, index), f"{name}.{nested.name}")
    for index, enum in enumerate(message.enum_type):
        yield from _of_enum(enum, (*path, 4, index), f"{name}.{enum.name}")


def _of_enum(enum: EnumDescriptorProto, path: tuple[int, ...], name: str) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, 2, index), f"{name}.{value.name}"
