"""What is measured: which messages, how many sessions at once, into which tables."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.watching import sizes as watching

CORPUS_FILES = {"coding": "swe_bench_runs.jsonl.gz", "airline": "airline_conversations.jsonl.gz"}
"""In the folder of SESSION_CORPUS; benchmarks.convert writes them."""
SYNTHETIC = "synthetic"
SYNTHETIC_BYTES = 1024
SYNTHETIC_SESSION = 50
"""Messages of a session: few, so that stores which rewrite the whole state are not judged by its growth."""
LONG = "long"
"""One session, to see whether its last saves cost what the first cost."""
LONG_SESSION = 5000
LONG_PARTS = ((0, 500), (500, 4500), (4500, 5000))
READS = "reads"
"""Not a save: what reading a session costs. Written alone."""
WAVES = 10
"""How often a packed case saves the conversations. What a wave took before it was packed stays behind as free room,
which the next one uses: after one wave alone that would be most of what is stored."""
DEFAULT = (
    "coding:1,coding:16,coding:16p,airline:1,airline:16,airline:16p,"
    "synthetic:1,synthetic:64,synthetic:256,long:1,reads,coding:16:prefilled,airline:16:prefilled,coding:16:packed,"
    "airline:16:packed," + ",".join(watching.CASES)
)
SYNTAX = (
    f"reads, {', '.join(watching.CASES)}, or WORK:IN_FLIGHT[p][:prefilled|:packed], WORK one of coding, airline,"
    " synthetic, long or a file; p: as many client processes"
)
ALONE = (READS, *watching.CASES)
"""Cases that are written alone, and measure this service only."""
COST_CASES = "synthetic:64,coding:16"
"""What is saved in the case that tells what events cost; the second with recorded conversations only."""


@dataclass(frozen=True)
class Case:
    """One measurement's circumstances."""

    work: str
    """A key of CORPUS_FILES, SYNTHETIC, LONG, one of ALONE, or the path of a file."""
    in_flight: int
    """Sessions saved at the same time."""
    processes: int = 1
    prefilled: bool = False
    """Into tables that hold many revisions already, and measuring WAL only."""
    packed: bool = False
    """Not how fast saves are, but what is stored once they have been packed. Written with one process."""

    def __str__(self) -> str:
        """Return the case as it is written on the command line, a file by its name only."""
        if self.work in ALONE:
            return self.work
        processes = "p" if self.processes > 1 else ""
        return f"{Path(self.work).name}:{self.in_flight}{processes}" + self._kind

    @property
    def _kind(self) -> str:
        return ":prefilled" if self.prefilled else ":packed" if self.packed else ""


@dataclass(frozen=True)
class ReadSizes:
    """How much the case READS reads, and how often."""

    messages: int = 1000
    long_messages: int = LONG_SESSION
    message_limit: int = 20
    repetitions: int = 300
    long_repetitions: int = 100


def parse(text: str) -> list[Case]:
    """Read cases separated by commas; raises ValueError with the syntax."""
    return [_parse(one.strip()) for one in text.split(",")]


def _parse(text: str) -> Case:
    if text in ALONE:
        return Case(text, in_flight=1)
    found = re.fullmatch(r"(.+?):([1-9]\d*)(p?)(:prefilled|:packed)?", text)
    if not found or (found[3] and found[4] == ":packed"):
        raise ValueError(f"{text!r} is not {SYNTAX}")
    work, in_flight, processes, kind = found.groups()
    count = int(in_flight)
    return Case(work, count, count if processes else 1, prefilled=kind == ":prefilled", packed=kind == ":packed")


def work_of(case: Case, corpus: Path | None, limit: int, synthetic_messages: int) -> dict[str, Any]:
    """Return what a worker's `take` needs; raises ValueError where files are missing."""
    if case.work == SYNTHETIC:
        # One at a time takes longest: fewer do.
        count = synthetic_messages if case.in_flight > 1 else synthetic_messages // 4
        return _synthetic(count, SYNTHETIC_SESSION, seed=case.in_flight)
    if case.work in ALONE:
        return {}
    if case.work == LONG:
        return _synthetic(LONG_SESSION, LONG_SESSION, seed=0)
    return {"file": str(file_of(case.work, corpus)), "limit": limit}


def _synthetic(count: int, session_messages: int, seed: int) -> dict[str, Any]:
    """Return the arguments of corpus.synthetic."""
    return {
        "message_count": count,
        "message_bytes": SYNTHETIC_BYTES,
        "session_messages": session_messages,
        "seed": seed,
    }


def file_of(work: str, corpus: Path | None) -> Path:
    """Return a work's file; raises ValueError if there is none."""
    if work in CORPUS_FILES and corpus is None:
        raise ValueError(f"{work} needs a folder of recorded conversations: --corpus or SESSION_CORPUS")
    file = corpus / CORPUS_FILES[work] if corpus and work in CORPUS_FILES else Path(work)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    return file.resolve()
