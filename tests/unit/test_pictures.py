"""The pictures that are drawn by a program are what it draws."""

import subprocess
import sys
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2] / "docs/images"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_is_what_its_program_draws(scratch: Path, theme: str) -> None:
    program = scratch / "follow.py"
    program.write_text((IMAGES / "follow.py").read_text())
    subprocess.run([sys.executable, "-B", str(program)], check=True)
    name = f"follow-{theme}.svg"
    assert (scratch / name).read_text() == (IMAGES / name).read_text()
