"""Packs what rests: small segments of sessions that nobody saves to just now become larger ones.

Reading, checking and compressing happen outside of any transaction. pack_segments_v1 then replaces the rows in one
short one, under the session's lock, if they are still those that were read. A kill at any point therefore costs no more
than the work on one segment. A reader's statement sees the rows either as they were or as they are, and so the same
messages.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from session_service.postgres.cold_sessions import ColdSession, Packed, Rests, Walk
from session_service.postgres.merging import COLUMNS, Merged, merge
from session_service.postgres.pool import Database
from session_service.sessions import packing, placement
from session_service.sessions.errors import Unavailable
from session_service.sessions.observer import PackingObserver, SilentPackingObserver
from session_service.sessions.packing import Piece, Pieces

LONGEST_PAUSE = 300.0
"""Seconds from the end of a walk to the next one, at most. Else as long as sessions take to come to rest."""

MOST_ROUNDS, ROUND_PAUSE = 5, 0.5
"""How often finish() goes round for sessions that were being changed, and seconds in between."""

PAGE = 2000
"""Segments of a transcript that are decided on at once."""

BATCH_BYTES = 4 << 20
"""Uncompressed bytes of messages that are read at once, or one segment that is larger."""

# $1 bucket, $2 tenant, $3 transcript, $4 first message, $5 how many. A damaged size must not make a run too long.
PIECES = """
    SELECT first_message, message_count, greatest(raw_size, 0) FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message >= $4
    ORDER BY first_message LIMIT $5
"""

# $1 bucket, $2 tenant, $3 transcript, $4 first messages
STORED = f"""
    SELECT {COLUMNS} FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message = ANY ($4)
"""  # noqa: S608  constants

PACK = "SELECT pack_segments_v1($1, $2, $3, $4, $5, $6, $7, $8)"
DONE = 0
"""What it returns if nothing came between."""

_log = structlog.stdlib.get_logger(__name__)


class Taken(Exception):
    """Another packer has taken this one's place."""


class Packer:
    """A chore: see housekeeping."""

    name = "packing"

    def __init__(
        self,
        database: Database,
        rests: Rests,
        observer: PackingObserver | None = None,
        *,
        take_over: bool = False,
        target: int = packing.TARGET_MESSAGES,
    ) -> None:
        """Do nothing yet.

        Args:
            database: where the sessions are.
            rests: what is packed when.
            observer: hears of what was done.
            take_over: begin at once, in the place of whoever packs now, and without a pause between rounds.
            target: messages of a full segment.
        """
        self._database = database
        self._observer = observer or SilentPackingObserver()
        pause = 0.0 if take_over else min(rests.pack_after, LONGEST_PAUSE)
        self._walk = Walk(database, rests, pause, take_over=take_over)
        self._target = target
        self._round: AsyncIterator[bool] | None = None
        self._rounds = 0
        self._disturbed = 0
        """Sessions of this round that were left because somebody was changing them."""

    async def step(self) -> bool:
        """Pack a few segments, or look at some sessions. False: for now nothing is left to do, or another packs."""
        if self._round is None:
            self._round = self._go_round()
        try:
            return await anext(self._round)
        except StopAsyncIteration:
            self._round = None
            return False
        except BaseException:
            self._round = None  # its place is in the database
            raise

    async def finish(self, rounds: int = MOST_ROUNDS) -> int:
        """Pack until nothing is left, and let others go on. Returns how many sessions were left for being changed.

        Raises:
            Taken: another has begun to pack meanwhile.
        """
        for number in range(rounds):
            if number:
                await asyncio.sleep(ROUND_PAUSE)
            ended = self._rounds
            while await self.step():
                pass
            if self._rounds == ended:
                raise Taken("somebody else packs by now")
            if not self._disturbed:
                break
        await self._walk.release()
        return self._disturbed

    async def _go_round(self) -> AsyncIterator[bool]:
        """Walk on from where the last one came to, up to the end; yield after each piece of work."""
        self._disturbed = 0
        while (found := await self._walk.find()) is not None:
            packed: list[Packed] = []
            for session in found:
                outcome = _Outcome()
                async for _ in self._pack_session(session, outcome):
                    yield True
                    if not await self._walk.hold():
                        return
                if outcome.done:
                    packed.append(Packed(session, outcome.unfinished))
            if not await self._walk.go_on(packed):
                self._rounds += 1
                return
            yield True

    async def _pack_session(self, session: ColdSession, outcome: "_Outcome") -> AsyncIterator[None]:
        """Pack its transcripts; what goes wrong with one session must not keep the walk from the others."""
        try:
            for transcript_id in session.transcripts:
                async for _ in self._pack_transcript(session, transcript_id, outcome):
                    yield
        except _Disturbed:
            outcome.done = False  # the next round finds it again
            self._disturbed += 1
        except Unavailable:
            raise
        except Exception as error:
            _log.exception("packing failed", session_id=session.session_id, error=repr(error))
            outcome.done = False

    async def _pack_transcript(
        self, session: ColdSession, transcript_id: int, outcome: "_Outcome"
    ) -> AsyncIterator[None]:
        scope = (session.bucket, session.key.tenant.tenant_id, transcript_id)
        growing = transcript_id == session.growing
        rest: int | None = 0
        while rest is not None:
            pieces = [Piece(*row) for row in await self._database.fetch(PIECES, *scope, rest, PAGE)]
            choice = packing.choose(pieces, growing=growing, more=len(pieces) == PAGE, target=self._target)
            for runs in _batches(choice.runs):
                await self._pack_runs(session, transcript_id, runs)
                yield
            rest = choice.rest
            if choice.unfinished:
                outcome.unfinished = transcript_id

    async def _pack_runs(self, session: ColdSession, transcript_id: int, runs: Sequence[Pieces]) -> None:
        """Make one segment of each run. Raises: _Disturbed."""
        tenant = session.key.tenant
        scope = (session.bucket, tenant.tenant_id, transcript_id)
        wanted = [piece.first_message for run in runs for piece in run]
        stored = {row["first_message"]: row for row in await self._database.fetch(STORED, *scope, wanted)}
        if len(stored) < len(wanted):
            raise _Disturbed
        rows = [[stored[piece.first_message] for piece in run] for run in runs]
        merged, damaged = await asyncio.to_thread(_merge_all, tenant.digest_secret, rows)
        for first in damaged:
            self._observer.packing_found_damage()
            _log.error(
                "a damaged segment is left as it is",
                agent_id=session.key.agent_id,
                session_name=session.key.session_name,
                transcript_id=transcript_id,
                first_message=first,
            )
        lock_key = placement.lock_key(session.key)
        for one in merged:
            await self._replace(lock_key, scope, one)

    async def _replace(self, lock_key: int, scope: tuple[int, int, int], merged: Merged) -> None:
        began = time.perf_counter()
        replaced = (merged.first_messages, merged.checksums, tuple(merged.row))
        # Safe to be repeated where a connection is lost: what was done is then found to be changed.
        row = await self._database.fetchrow(PACK, self._walk.holder, lock_key, *scope, *replaced)
        if row is None or row[0] != DONE:
            raise _Disturbed
        self._observer.packed(
            merged.row.message_count,
            len(merged.first_messages),
            merged.stored_bytes,
            len(merged.row.payload),
            time.perf_counter() - began,
        )


class _Disturbed(Exception):
    """The session is being changed just now, or somebody else packs."""


@dataclass
class _Outcome:
    """What has become of a session."""

    done: bool = True
    """Whether it was packed as far as it was found."""
    unfinished: int | None = None
    """A transcript of which something was left."""


def _batches(runs: Sequence[Pieces]) -> Iterator[Sequence[Pieces]]:
    """Runs that are read together."""
    batch: list[Pieces] = []
    size = 0
    for run in runs:
        more = sum(piece.raw_size for piece in run)
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(run)
        size += more
    if batch:
        yield batch


def _merge_all(secret: bytes, runs: Sequence[Sequence[asyncpg.Record]]) -> tuple[Sequence[Merged], Sequence[int]]:
    """See merge()."""
    parts = [merge(secret, run) for run in runs]
    return [one for merged, _ in parts for one in merged], [first for _, damaged in parts for first in damaged]
