"""Makes the recorded conversations of the coding and airline cases from two public repositories.

    git clone --depth 1 https://github.com/gruckion/mini-swe-agent
    git clone --depth 1 https://github.com/sierra-research/tau-bench
    python -m benchmarks.convert mini-swe-agent tau-bench corpus
    SESSION_CORPUS=corpus make bench

Both are under the MIT License. The messages are kept as they are.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CORPUS_FILES

Line = dict[str, Any]

CODING_RUNS = Path("swebench_results/20251118_gemini-3-pro-74pct/trajs")
AIRLINE_FILE = Path("historical_trajectories/gpt-4o-airline.json")
CODING_INSTANCES = (
    "django__django-16255",
    "django__django-16527",
    "scikit-learn__scikit-learn-14141",
    "django__django-14915",
    "django__django-15104",
    "sympy__sympy-23824",
    "sympy__sympy-24213",
    "django__django-11951",
    "matplotlib__matplotlib-25332",
    "sympy__sympy-19954",
    "scikit-learn__scikit-learn-14053",
    "django__django-16642",
    "sympy__sympy-22714",
    "sympy__sympy-15349",
    "matplotlib__matplotlib-21568",
    "sympy__sympy-15345",
    "django__django-13786",
    "matplotlib__matplotlib-24870",
    "django__django-16333",
    "django__django-13158",
    "django__django-14855",
    "astropy__astropy-14182",
    "matplotlib__matplotlib-25479",
    "pytest-dev__pytest-6202",
    "psf__requests-1724",
    "sphinx-doc__sphinx-8721",
    "django__django-13315",
    "sphinx-doc__sphinx-7462",
    "django__django-16315",
    "psf__requests-1921",
    "pylint-dev__pylint-4970",
    "psf__requests-5414",
    "sympy__sympy-14531",
    "django__django-15375",
    "matplotlib__matplotlib-25960",
    "pylint-dev__pylint-4551",
    "django__django-15128",
    "pytest-dev__pytest-10356",
    "sphinx-doc__sphinx-10449",
    "sympy__sympy-13974",
    "psf__requests-1142",
)
"""Of 500 runs, by name and in this order."""


def coding(repository: Path) -> Iterator[Line]:
    """Give the runs of a coding agent on SWE-bench issues, 3,160 messages."""
    for name in CODING_INSTANCES:
        run = json.loads((repository / CODING_RUNS / name / f"{name}.traj.json").read_bytes())
        yield {"agent_id": "mini-swe-agent", "session_name": name, "messages": run["messages"]}


def airline(repository: Path) -> Iterator[Line]:
    """Give customer-service conversations with tool calls, three of five of the file, 3,036 messages."""
    for index, one in enumerate(json.loads((repository / AIRLINE_FILE).read_bytes())):
        if index % 5 < 3:
            name = f"task-{one['task_id']}-trial-{one['trial']}"
            yield {"agent_id": "airline-agent", "session_name": name, "messages": one["traj"]}


def write(lines: Iterable[Line], file: Path) -> None:
    """Write JSON lines, compressed, and tell what is in them."""
    conversations = messages = 0
    with gzip.GzipFile(file, "wb", mtime=0) as compressed:
        for line in lines:
            compressed.write(json.dumps(line).encode() + b"\n")
            conversations, messages = conversations + 1, messages + len(line["messages"])
    print(f"{file}: {conversations} conversations, {messages} messages")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convert", description="Make recorded conversations.")
    parser.add_argument("mini_swe_agent", type=Path, help="clone of github.com/gruckion/mini-swe-agent")
    parser.add_argument("tau_bench", type=Path, help="clone of github.com/sierra-research/tau-bench")
    parser.add_argument("corpus", type=Path, help="folder to write to")
    arguments = parser.parse_args(argv)
    arguments.corpus.mkdir(parents=True, exist_ok=True)
    try:
        write(coding(arguments.mini_swe_agent), arguments.corpus / CORPUS_FILES["coding"])
        write(airline(arguments.tau_bench), arguments.corpus / CORPUS_FILES["airline"])
    except FileNotFoundError as missing:
        print(f"benchmarks.convert: {missing.filename} is missing: is this the right repository?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
