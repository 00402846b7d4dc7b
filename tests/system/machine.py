"""What the system tests need of the machine; what is missing skips a test, and fails it in CI."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str) -> str:
    """Return the path of a program: of this Python's environment, or on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        missing(f"{name} is not installed (tests/system/install-packages.sh installs Debian's)")
    return found


def require_root() -> None:
    """Require that this process may mount and switch users."""
    if os.geteuid() != 0:
        missing("needs root: builds a base image and runs containers")


def missing(reason: str) -> NoReturn:
    """End the test: skipped on a developer's machine, failed where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
