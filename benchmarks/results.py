"""What was measured, as a file that reports and plots are made from."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.stores import STORES

APART = "results go into a file of their own (--results)"


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
    empty_bytes: int | None = None
    """The same before the first save: indexes begin with a page each."""
    restore_p50: float | None = None
    """Per session, one after another; everything restored was equal to what was saved."""
    messages_compared: int
    p50_growth: float | None = None
    """Of one long session only: the median save among the last 500 by that among the first 500."""
    wal_growth: float | None = None
    """The same of the WAL that they wrote."""
    processor_seconds: dict[str, float] = field(default_factory=dict)
    """While saving, by part; see benchmarks.processor_time."""
    longest_transaction: float | None = None
    """Beside packing only: the oldest writing transaction that was seen, which readers of the log had to wait for."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measurement of reads. Sizes in bytes, times in seconds: medians of all repetitions."""

    round: int
    case: str
    messages: int
    payload_bytes: int
    """Of the state that was read; its parts are the rows of the SELECT and the bytes of the echo."""
    long_messages: int
    message_limit: int
    repetitions: int
    long_repetitions: int
    seconds: dict[str, float]
    """By what was timed, see benchmarks.reads."""
    plans: dict[str, dict[str, list[int]]]
    """Of the service's statement on the long session: rows and buffers by table and index."""
    packed_seconds: dict[str, float] = field(default_factory=dict)
    """The same as `seconds`, of the shorter session, after it was packed."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """One measurement of a packed case. Sizes in bytes, times in seconds."""

    round: int
    case: str
    waves: int
    saves: int
    payload_bytes: int
    """Of the conversations, all waves together."""
    first_payload_bytes: int
    """Of those of the first wave."""
    unpacked: dict[str, list[int]]
    """By table after the first wave, before it was packed: its rows, its TOAST, its indexes."""
    packed: dict[str, list[int]]
    """The same after the last wave."""
    saving_wal_bytes: int
    packing_wal_bytes: int
    packed_messages: int
    packing_seconds: float
    """The command's, from its connection to its end."""
    revisions_compared: int
    """Each restored after the last wave, and equal to what was saved."""


@dataclass(frozen=True, kw_only=True)
class Watching:
    """One round of a case of watching. Times in seconds, sizes in bytes."""

    round: int
    case: str
    sizes: dict[str, int]
    """See benchmarks.watching.sizes."""
    figures: dict[str, dict[str, list[float]]]
    """Of each variant each measure; what has the same place in a list was measured in the same turn."""


@dataclass
class Run:
    """All measurements of one run or of several into the same file, and where they were made."""

    machine: dict[str, str]
    postgres: dict[str, str]
    options: dict[str, Any]
    """What results depend on; other than these, runs into one file may differ."""
    stores: dict[str, dict[str, str]] = field(default_factory=dict)
    """Descriptions by store."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a store was not measured."""
    results: list[Result] = field(default_factory=list)
    reads: list[Reading] = field(default_factory=list)
    packings: list[Packing] = field(default_factory=list)
    watchings: list[Watching] = field(default_factory=list)

    def rounds(self, case: str) -> int:
        """Return how many rounds of a case were begun."""
        measured: list[Result | Reading | Packing | Watching] = [
            *self.results,
            *self.reads,
            *self.packings,
            *self.watchings,
        ]
        return max((one.round for one in measured if one.case == case), default=0)

    def describe(self, store: str, description: dict[str, str]) -> None:
        """Keep a store's description; raises ValueError if other versions of it were measured before."""
        before = self.stores.get(store, description)
        if before["version"] != description["version"]:
            raise ValueError(f"{store} was {before['version']} before, and is {description['version']} now: {APART}")
        self.skipped.pop(store, None)
        described = self.stores | {store: description}
        self.stores = {name: described[name] for name in STORES if name in described}

    def continued(self, file: Path) -> "Run":
        """Return what is in a file, to be added to; raises ValueError if this run cannot be compared with it."""
        if not file.exists():
            return self
        found = Run.read(file)
        for name in ("machine", "postgres", "options"):
            before, now = getattr(found, name), getattr(self, name)
            if before != now:
                raise ValueError(f"{file} was measured with {name} {before}, not {now}: {APART}")
        return found

    def write(self, file: Path) -> None:
        """Write everything as JSON. A run that is killed leaves the file whole, as it was before."""
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(file)

    @classmethod
    def read(cls, file: Path) -> "Run":
        """Read what `write` wrote."""
        found = json.loads(file.read_text())
        measured = {
            "results": [Result(**result) for result in found["results"]],
            "reads": [Reading(**reading) for reading in found["reads"]],
            "packings": [Packing(**packing) for packing in found.get("packings", ())],
            "watchings": [Watching(**watching) for watching in found.get("watchings", ())],
        }
        return cls(**(found | measured))


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
