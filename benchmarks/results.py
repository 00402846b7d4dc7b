"""What was measured, as a file that reports and plots are made from."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measurement of one store. Sizes in bytes, times in seconds."""

    round: int
    store: str
    case: str
    saves: int
    seconds: float
    save_p50: float
    save_p99: float
    payload_bytes: int
    """Of the conversations that were saved."""
    wal_bytes: int
    """While saving. Prefilled tables: in the second pass, when the images after the checkpoint are written."""
    wal_after_checkpoint: int | None = None
    """Prefilled tables only: in the first pass, which began right after a checkpoint."""
    stored_bytes: int | None = None
    """Fresh tables only: everything in the database after VACUUM."""
    restore_p50: float | None = None
    """Per session, one after another; everything restored was equal to what was saved."""
    messages_compared: int
    p50_growth: float | None = None
    """Of one long session only: the median save among the last 500 by that among the first 500."""
    wal_growth: float | None = None
    """The same of the WAL that they wrote."""


@dataclass
class Run:
    """All measurements of one run, and where they were made."""

    machine: dict[str, str]
    postgres: dict[str, str]
    options: dict[str, Any]
    stores: dict[str, dict[str, str]] = field(default_factory=dict)
    """Descriptions by store."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a store was not measured."""
    results: list[Result] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write everything as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> "Run":
        """Read what `write` wrote."""
        found = json.loads(file.read_text())
        return cls(**(found | {"results": [Result(**result) for result in found["results"]]}))


def machine() -> dict[str, str]:
    """Describe this machine, without naming it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
