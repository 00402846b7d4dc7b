"""Memory that was freed."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from session_service.allocator import keep_freed_memory

if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit("skip")
if sys.argv[1] != "as it is":
    assert keep_freed_memory() == (sys.argv[1] == "kept")

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def answer():
    blocks = [b"x" * (1 << 20) for _ in range(4)]
    return len(b"".join(blocks))

for _ in range(5):
    answer()
before = faults()
for _ in range(20):
    answer()
print((faults() - before) // 20)
"""


def pages(how: str, **environment: str) -> int:
    """Return how many pages a large answer gets from the kernel, in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env={"PYTHONPATH": ":".join(sys.path), **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    if told.stderr.startswith("skip"):
        pytest.skip("this C library cannot be told")
    return int(told.stdout or told.stderr)


def test_a_large_answer_is_built_in_memory_that_was_used_before() -> None:
    assert pages("kept") < 20
    assert pages("as it is") > 200


def test_what_the_environment_says_is_left_alone() -> None:
    assert pages("refused", MALLOC_TRIM_THRESHOLD_="131072") > 200
