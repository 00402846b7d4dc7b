"""What was found to be damaged, and who needs it."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

KEYS = {
    "sessions": ("session_id",),
    "revisions": ("session_id", "revision"),
    "transcripts": ("transcript_id",),
    "transcript_segments": ("transcript_id", "first_message"),
    "state_values": ("tenant_id", "agent_id", "digest"),
}
"""Columns of the tables' keys, after the bucket."""

NO_TENANT = "there is no such tenant"
"""What is wrong with a row whose tenant_id is nobody's."""

Key = tuple[int | str | bytes, ...]
"""Values of these columns."""


class Owner(NamedTuple):
    """A session, as people know it."""

    tenant: str
    agent_id: str
    session_name: str


@dataclass
class Damage:
    """One row that is damaged or missing."""

    bucket: int
    table: str
    key: Key
    what: str
    missing_to: int | None = None
    """Of what is missing: the transcript that should have it."""
    needed_by: dict[Owner, set[int]] = field(default_factory=dict)
    """Revisions that need the row."""

    def __str__(self) -> str:
        """One line."""
        names = zip(KEYS[self.table], self.key, strict=True)
        key = " ".join(f"{name}={_shown(value)}" for name, value in [("bucket", self.bucket), *names])
        needed = [
            f"tenant {json.dumps(owner.tenant)} agent {json.dumps(owner.agent_id)}"
            f" session {json.dumps(owner.session_name)} revisions {_ranges(revisions)}"
            for owner, revisions in sorted(self.needed_by.items())
        ]
        return f"{self.table} {key}: {self.what}; needed by {', '.join(needed) or 'no revision'}"


class Findings:
    """Damage in one bucket; the first thing that is wrong with a row counts."""

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        self._damages: dict[tuple[str, Key], Damage] = {}

    def __iter__(self) -> Iterator[Damage]:
        """All of it, by table and key."""
        return iter([self._damages[place] for place in sorted(self._damages, key=repr)])

    def __len__(self) -> int:
        return len(self._damages)

    def add(self, table: str, key: Key, what: str, missing_to: int | None = None) -> None:
        """Something is wrong with a row."""
        self._damages.setdefault((table, key), Damage(self.bucket, table, key, what, missing_to))

    def unneeded(self) -> set[int]:
        """Transcripts to which something is missing that no revision needs."""
        return {d.missing_to for d in self._damages.values() if d.missing_to is not None and not d.needed_by}

    def excuse(self, transcripts: Collection[int]) -> None:
        """Forget what is missing to these and needed by no revision."""
        self._damages = {
            place: damage
            for place, damage in self._damages.items()
            if damage.needed_by or damage.missing_to not in transcripts
        }

    def has(self, table: str, key: Key) -> bool:
        """Whether something is wrong with a row."""
        return (table, key) in self._damages

    def of(self, table: str) -> Iterator[Key]:
        """The keys of a table's damaged rows."""
        return (key for damaged, key in [*self._damages] if damaged == table)

    def needs(self, table: str, key: Key, owner: Owner, revision: int) -> None:
        """A revision needs a row: noted if something is wrong with that."""
        if found := self._damages.get((table, key)):
            found.needed_by.setdefault(owner, set()).add(revision)

    def confirm(self, again: "Findings") -> None:
        """Keep what was found again; `again` tells who needs it."""
        self._damages = {place: again._damages[place] for place in self._damages if place in again._damages}

    def take(self, others: "Findings") -> None:
        """Add what others found."""
        for place, damage in others._damages.items():
            known = self._damages.setdefault(place, damage)
            for owner, revisions in damage.needed_by.items():
                known.needed_by.setdefault(owner, set()).update(revisions)


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them: 1-4 6."""
    runs = (
        [number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    )
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _shown(value: int | str | bytes) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value) if isinstance(value, str) else str(value)
