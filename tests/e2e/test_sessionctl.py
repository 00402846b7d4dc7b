"""sessionctl against a real server: what it prints, and what it ends with."""

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sessionctl_process import Sessionctl
from tests.fixtures.servers import ServerProcess
from tests.fixtures.shared_server import Database

TEXT = "hello \x00 \x1b[31m \x9b31m \U0001f600"
"""With escape sequences of both kinds."""

STATE = {
    "message_history": [
        {
            "role": "ROLE_USER",
            "text": TEXT,
            "create_time": "2026-01-31T09:30:00.123456789Z",
        },
        {"payload": {"content_type": "application/json", "data": "eyJhIjogMX0="}, "message_id": "m2"},
    ],
    "loop_state": "LOOP_STATE_THINKING",
    "created_at": "2020-02-29T23:59:59.000000001Z",
    "llm_provider": "p",
    "auth_context": {"type": "api_key"},
    "values": {"v": {"content_type": "x/y", "data": "AAEC"}},
}


@pytest.fixture
def ctl(shared_server: ServerProcess, emptied_database: Database) -> Sessionctl:
    return Sessionctl(shared_server.address)


@pytest.fixture
def nowhere() -> Iterator[Sessionctl]:
    """Return one whose server never answers: the port is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Sessionctl(f"127.0.0.1:{bound.getsockname()[1]}")


@pytest.fixture
def saved(ctl: Sessionctl) -> Sessionctl:
    """Return it with agents/a/sessions/s at revision 1."""
    ctl.document("save", "a", "s", "--file", "-", stdin=json.dumps(STATE))
    return ctl


def messages(*texts: str) -> str:
    return "".join(json.dumps({"role": "user", "content": text}) + "\n" for text in texts)


def test_a_state_comes_back_as_it_was_saved(ctl: Sessionctl, data_dir: Path) -> None:
    data_dir.mkdir()
    ingoing, outgoing = data_dir / "in.json", data_dir / "out.json"
    ingoing.write_text(json.dumps(STATE))
    first = ctl.document(
        *("save", "a", "s", "--file", ingoing, "--expected-revision", "0", "--user-id", "u"),
        *("--label", "l=1", "--label", "m=x=y", "--metadata", "k=v", "--checkpoint-id", "c"),
    )
    assert first["revision"]["revision"] == "1"
    assert (first["revision"]["checkpoint_id"], first["revision"]["metadata"]) == ("c", {"k": "v"})
    assert (first["session"]["user_id"], first["session"]["labels"]) == ("u", {"l": "1", "m": "x=y"})
    assert not first["replayed"]
    assert ctl("restore", "a", "s", "--file", outgoing).returncode == 0
    restored = json.loads(outgoing.read_text())
    assert restored["agent_id"] == "a"
    assert restored["created_at"] == STATE["created_at"]
    assert restored["values"] == STATE["values"]
    assert restored["message_history"][0]["text"] == TEXT
    assert restored["message_history"][0]["create_time"] == "2026-01-31T09:30:00.123456789Z"
    ctl.document("save", "a", "s", "--file", outgoing)
    assert ctl("restore", "a", "s", "--file", "-").stdout == outgoing.read_text()


def test_revisions_by_number_and_checkpoint(ctl: Sessionctl) -> None:
    ctl.document("save", "a", "s", "--messages", "-", "--checkpoint-id", "one", stdin=messages("x"))
    ctl.document("save", "a", "s", "--messages", "-", stdin=messages("x", "y", "z"))
    assert len(ctl.document("restore", "a", "s")["state"]["message_history"]) == 3
    for target in (("--revision", "1"), ("--checkpoint-id", "one")):
        assert len(ctl.document("restore", "a", "s", *target)["state"]["message_history"]) == 1
    assert len(ctl.document("restore", "a", "s", "--message-limit", "2")["state"]["message_history"]) == 2
    assert [line["revision"] for line in ctl.lines("show", "a", "s", "--revisions")] == ["2", "1"]
    shown = ctl.document("show", "a", "s", "--revision", "1")
    assert len(shown["state"]["message_history"]) == 1
    table = ctl("restore", "a", "s", "--message-limit", "1").stdout.splitlines()
    assert table[-1].split()[0] == "3"  # the number it has in the conversation


def test_show_records_nothing_and_restore_does(saved: Sessionctl) -> None:
    saved.document("show", "a", "s", "--revision", "1")
    assert "last_restore_time" not in saved.document("show", "a", "s")
    saved.document("restore", "a", "s")
    assert "last_restore_time" in saved.document("show", "a", "s")


def test_lists_are_filtered_ordered_and_limited(ctl: Sessionctl) -> None:
    for name, label, user in (("s1", "k=1", "u"), ("s2", "k=2", "u"), ("t1", "k=1", "w")):
        ctl.document("save", "a", name, "--messages", "-", "--label", label, "--user-id", user, stdin=messages("x"))
    ctl.document("save", "b", "--messages", "-", stdin=messages("x"))

    def names(*arguments: str) -> list[str]:
        return [line["session_name"] for line in ctl.lines("list", *arguments)]

    assert names("a") == ["t1", "s2", "s1"]
    assert names("a", "--order-by", "name") == ["s1", "s2", "t1"]
    assert names("a", "--order-by", "name", "--limit", "2") == ["s1", "s2"]
    assert names("a", "--label", "k=1", "--user-id", "u") == ["s1"]
    assert names("--name-prefix", "s") == [names("b")[0], "s2", "s1"]
    ctl.document("delete", "a", "s1")
    assert names("a") == ["t1", "s2"]
    assert names("a", "--show-deleted", "--order-by", "name") == ["s1", "s2", "t1"]
    table = ctl("list", "a", "--show-deleted").stdout.splitlines()
    assert len(table) == 4
    assert len({line.index("a") for line in table[1:]}) == 1


def test_delete_undelete_and_purge(saved: Sessionctl) -> None:
    assert saved.failure("delete", "a", "s", "--expected-revision", "7")[0] == 1
    assert "delete_time" in saved.document("delete", "a", "s", "--expected-revision", "1")
    assert saved.failure("restore", "a", "s")[0] == 1
    assert "delete_time" not in saved.document("undelete", "a", "s")
    saved.document("delete", "a", "s", "--purge")
    assert saved.failure("show", "a", "s")[0] == 3


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_a_purge_asks_on_a_terminal(saved: Sessionctl, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            saved.command("delete", "a", "s", "--purge"),
            env=saved.environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code
    assert "Purge agents/a/sessions/s" in done.stderr
    assert saved("show", "a", "s").returncode == (0 if code else 3)


def test_yes_answers_the_question(saved: Sessionctl) -> None:
    ours, theirs = pty.openpty()
    command = saved.command("delete", "a", "s", "--purge", "--yes")
    try:
        done = subprocess.run(
            command, env=saved.environment(), stdin=theirs, capture_output=True, text=True, timeout=30
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert not done.stderr


def test_no_escape_sequence_reaches_a_terminal(saved: Sessionctl) -> None:
    for arguments in (
        ("restore", "a", "s"),
        ("restore", "a", "s", "--output", "json"),
        ("show", "a", "s", "--revision", "1"),
    ):
        done = saved(*arguments)
        assert "[31m" in done.stdout
        assert not {"\x1b", "\x9b", "\x00"} & set(done.stdout)


def test_refusals_are_one_line_with_reason(saved: Sessionctl) -> None:
    code, line = saved.failure("save", "a", "s", "--messages", "-", "--expected-revision", "0", stdin=messages("x"))
    assert (code, line.startswith("sessionctl: REVISION_MISMATCH: ")) == (1, True)
    code, line = saved.failure("save", "a", "bad\x1bname", "--messages", "-", stdin=messages("x"))
    assert (code, line.startswith("sessionctl: INVALID_FIELD: session_name")) == (1, True)
    code, line = saved.failure("show", "a", "none")
    assert (code, line.startswith("sessionctl: SESSION_NOT_FOUND: ")) == (3, True)
    code, line = saved.failure("restore", "a", "s", "--revision", "9")
    assert (code, line.startswith("sessionctl: REVISION_NOT_FOUND: ")) == (3, True)


def test_damaged_data_is_told(saved: Sessionctl, shared_database: Database) -> None:
    shared_database.fetch("UPDATE revisions SET state = set_byte(state, 0, get_byte(state, 0) # 1)")
    code, line = saved.failure("restore", "a", "s")
    assert (code, line.startswith("sessionctl: CORRUPT_DATA: ")) == (5, True)


def test_usage_is_told_in_one_line(nowhere: Sessionctl, data_dir: Path) -> None:
    data_dir.mkdir()
    broken = data_dir / "broken.jsonl"
    broken.write_text('{"role": "user"}\n{"role": \n')
    for arguments, told in (
        (("save", "a", "s"), "--file --messages"),
        (("save", "a", "s", "--file", "/nowhere/x"), "/nowhere/x: No such file"),
        (("save", "a", "s", "--messages", str(broken)), f"{broken}, line 2: not JSON"),
        (("restore", "a", "s", "--revision", "1", "--checkpoint-id", "c"), "not allowed with"),
        (("list", "--limit", "0"), "between 1 and"),
        (("list", "--label", "novalue"), "KEY=VALUE"),
        (("--target", "nonsense", "list"), "HOST:PORT"),
        (("restore", "a", "s", "--revision", "99999999999999999999"), "between 1 and"),
        (("nonsense",), "nonsense"),
    ):
        code, line = nowhere.failure(*arguments)
        assert code == 2
        assert told in line
    code, line = nowhere.failure("save", "a", "s", "--file", "-", stdin='{"no_such_field": 1}')
    assert (code, "no_such_field" in line) == (2, True)


def test_no_server_is_told_within_the_timeout(nowhere: Sessionctl) -> None:
    code, line = nowhere.failure("list", "--timeout", "0.5")
    assert code == 4
    assert "DEADLINE_EXCEEDED" in line
    assert "UNAVAILABLE" in line


def test_a_reader_that_goes_away_is_no_error(saved: Sessionctl) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            saved.command("list"), env=saved.environment(), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert not done.stderr


def test_ctrl_c_ends_it_quietly(nowhere: Sessionctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = nowhere.command("list", "--target", address)
        process = subprocess.Popen(command, env=nowhere.environment(), stderr=subprocess.PIPE, text=True)
        with process:
            silent.settimeout(30)
            connection, _ = silent.accept()  # it waits for this server now
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            connection.close()
    assert (process.returncode, told) == (130, "")


def test_help_and_version(nowhere: Sessionctl) -> None:
    told = nowhere("--help").stdout
    for code in ("0", "1", "2", "3", "4", "5", "130"):
        assert any(line.split()[:1] == [code] for line in told.splitlines()), code
    assert nowhere("--version").stdout.startswith("sessionctl ")
