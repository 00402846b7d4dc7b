"""A client process that saves and restores; see benchmarks.commands.

Each measurement has processes of its own, so that no store inherits another's
imports, garbage or connections.
"""

import uuid
from dataclasses import asdict
from pathlib import Path

from benchmarks import commands, corpus, load, stores
from benchmarks.cases import ReadSizes
from benchmarks.commands import Answer
from benchmarks.stores.base import Access, Store


class Worker:
    """One store, and the conversations it is given."""

    def __init__(self, name: str) -> None:
        self._store: Store = stores.make(name)
        self._conversations: list[corpus.Conversation] = []

    async def describe(self) -> Answer:
        """Tell what the store is."""
        return asdict(self._store.describe())

    async def prepare(self, dsn: str) -> Answer:
        """Make the store's tables."""
        await self._store.prepare(dsn)
        return {}

    async def open(self, access: Answer) -> Answer:
        """Connect and warm up."""
        await self._store.open(Access(**access))
        await load.warm_up(self._store, uuid.uuid4().hex)
        return {}

    async def take(self, work: Answer, suffix: str, part: int, parts: int) -> Answer:
        """Read or make the conversations, under names with a suffix; of several processes each takes a part."""
        made = conversations(work)
        taken = corpus.share(made, part, parts) if parts > 1 else made
        self._conversations = [one.renamed(suffix) for one in taken]
        return {"payload_bytes": sum(one.size for one in self._conversations)}

    async def save(self, in_flight: int, begin: int = 0, end: int | None = None) -> Answer:
        """Save the conversations, or a part of each."""
        return asdict(await load.save(self._store, self._conversations, in_flight, slice(begin, end)))

    async def restore(self) -> Answer:
        """Restore and compare them."""
        return asdict(await load.restore(self._store, self._conversations))

    async def compare(self) -> Answer:
        """Restore every revision of the conversations, and compare it."""
        return {"revisions": await load.compare_revisions(self._store, self._conversations)}

    async def read(self, dsn: str, echo: str, sizes: Answer) -> Answer:
        """Time reads through our client; not a store's business."""
        from benchmarks import reads  # only for this one case

        return await reads.measure(self._store, dsn, echo, ReadSizes(**sizes))

    async def close(self) -> Answer:
        """Disconnect."""
        await self._store.close()
        return {}


def conversations(work: Answer) -> list[corpus.Conversation]:
    """Return what a work is about: a file's conversations, or made ones."""
    if "file" in work:
        return corpus.load(Path(work["file"]), work["limit"])
    return corpus.synthetic(**work)


if __name__ == "__main__":
    commands.answer(Worker)
