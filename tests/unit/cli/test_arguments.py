"""Arguments: where they may stand, what they may be."""

import pytest
from agent_sessions.cli.arguments import parser


def test_options_for_every_command_stand_before_or_after_its_name() -> None:
    before = parser({}).parse_args(["--target", "h:1", "--output", "json", "--timeout", "3", "list"])
    after = parser({}).parse_args(["list", "--target", "h:1", "--output", "json", "--timeout", "3"])
    assert before == after
    assert (after.target, after.output, after.timeout) == ("h:1", "json", 3.0)


def test_the_target_comes_from_flag_environment_or_default() -> None:
    environ = {"SESSIONCTL_TARGET": "e:1"}
    assert parser(environ).parse_args(["list", "--target", "f:1"]).target == "f:1"
    assert parser(environ).parse_args(["list"]).target == "e:1"
    assert parser({"SESSIONCTL_TARGET": ""}).parse_args(["list"]).target == "127.0.0.1:7450"


@pytest.mark.parametrize("target", ["h:1", "[::1]:65535", "unix:/run/x", "unix:x", "dns:///h:1"])
def test_targets_that_are_taken(target: str) -> None:
    assert parser({}).parse_args(["list", "--target", target]).target == target


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--target", "h"],
        ["list", "--target", "h:"],
        ["list", "--target", ":1"],
        ["list", "--target", "h:65536"],
        ["list", "--target", "h:٣"],
        ["list", "--timeout", "0"],
        ["list", "--timeout", "nan"],
        ["list", "--timeout", "inf"],
        ["list", "\udcff"],
        ["list", "--limit", "x"],
        ["save", "a", "--file", "f", "--messages", "m"],
        ["save", "a", "--file", "f", "--expected-revision", "-1"],
        ["delete", "a", "s", "--expected-revision", "0"],
        ["replay", "f", "--concurrency", "0"],
        ["replay", "f", "--unique", "--session-suffix", "x"],
        ["show", "a", "s", "--rev", "1"],
        ["watch", "--types", "saved,unknown"],
        ["watch", "--types", ""],
        ["watch", "--resume-token", "no base64!"],
        ["watch", "--count", "0"],
        [],
    ],
)
def test_what_is_refused_is_told_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser({}).parse_args(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sessionctl")
    assert "--help" in line


def test_what_to_watch() -> None:
    given = parser({}).parse_args(["watch", "a", "s", "--types", "saved, Restored", "--resume-token", "AAE=", "--json"])
    assert (given.agent, given.session, given.output) == ("a", "s", "json")
    assert (given.types, given.resume_token, given.count) == ([1, 2], b"\0\1", None)
    by_default = parser({}).parse_args(["--json", "watch"])
    assert (by_default.agent, by_default.session, by_default.output) == ("", "", "json")
    assert (by_default.types, by_default.resume_token) == ([2], b"")


def test_every_command_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("save", "restore", "list", "show", "delete", "undelete", "watch", "replay"):
        with pytest.raises(SystemExit):
            parser({}).parse_args([command, "--help"])
        told = capsys.readouterr().out
        assert "\n    5  stored data is damaged, or a comparison failed\n" in told
