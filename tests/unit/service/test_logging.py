import json
import subprocess
import sys

import pytest
from session_service.logging import printable

LOG_ALL = """
import logging, sys, structlog
from session_service.logging import configure
configure(sys.argv[1], sys.argv[2])
ours = structlog.stdlib.get_logger("ours")
ours.debug("quiet")
ours.info("call", code="OK", agent_id="ä\\n\\x1b[31m")
logging.getLogger("grpc._cython").warning("from %s", "grpc")
try:
    secret_in_a_local_variable = "hunter2"
    1 / 0
except ZeroDivisionError as error:
    ours.error("call", code="INTERNAL", exc_info=error)
"""


def logged(log_format: str, level: str = "info") -> list[str]:
    """Run in a process of its own: logging is configured once for a process."""
    done = subprocess.run(
        [sys.executable, "-c", LOG_ALL, log_format, level], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_also_from_the_standard_library() -> None:
    call, foreign, error = map(json.loads, logged("json"))
    assert call["event"] == "call"
    assert (call["level"], call["logger"], call["code"]) == ("info", "ours", "OK")
    assert call["timestamp"].endswith("Z")
    assert (foreign["event"], foreign["level"], foreign["logger"]) == ("from grpc", "warning", "grpc._cython")
    assert "ZeroDivisionError" in error["exception"]


def test_console_is_for_people_and_shows_no_local_variable() -> None:
    text = "\n".join(logged("console"))
    assert "from grpc" in text
    assert "ZeroDivisionError" in text
    assert "hunter2" not in text.replace('secret_in_a_local_variable = "hunter2"', "")


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_decides_what_is_written(level: str, lines: int) -> None:
    assert len(logged("json", level)) == lines


def test_texts_of_callers_are_bounded_and_printable() -> None:
    assert printable("größe 1") == "größe 1"
    assert printable("a\x1b[31m\n\u202e") == "a\\x1b[31m\\n\\u202e"
    assert len(printable("x" * 5_000_000)) < 300
