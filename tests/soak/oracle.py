"""What each watcher got, compared with the log."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.watcher import Received
from tests.soak.database import Logged


@dataclass
class Verdict:
    """On one watcher."""

    wanted: int = 0
    """Events in the log that it asked for."""
    delivered: int = 0
    """Repeats included."""
    repeats: int = 0
    """Over a later stream than before."""
    lost: int = 0
    out_of_order: int = 0
    """After a later event of the same session, for the first time or over the same stream."""
    false: int = 0
    """Not in the log, not asked for, other than in the log, or again over the same stream."""

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.out_of_order or self.false)


def judge(log: Sequence[Logged], types: Sequence[int], agent_id: str, received: Sequence[Received]) -> Verdict:
    """Compare what a watcher got, in the order in which it got it, with the log."""
    wanted = {one.event_id: (place, one) for place, one in enumerate(log) if _is_wanted(one, types, agent_id)}
    verdict = Verdict(wanted=len(wanted), delivered=len(received))
    seen_over: dict[str, int] = {}
    newest: dict[tuple[str, str], int] = defaultdict(lambda: -1)
    newest_of_stream: dict[tuple[int, str, str], int] = defaultdict(lambda: -1)
    for one in received:
        place, logged = wanted.get(one.event_id, (-1, None))
        if logged is None or not _is_same(one, logged) or seen_over.get(one.event_id) == one.stream:
            verdict.false += 1
            continue
        session, over = (one.agent_id, one.session_name), (one.stream, one.agent_id, one.session_name)
        is_repeat = one.event_id in seen_over
        verdict.repeats += is_repeat
        verdict.out_of_order += place < newest_of_stream[over] or (not is_repeat and place < newest[session])
        seen_over[one.event_id] = one.stream
        newest[session] = max(newest[session], place)
        newest_of_stream[over] = max(newest_of_stream[over], place)
    verdict.lost = len(wanted.keys() - seen_over.keys())
    return verdict


def wrong_in_log(log: Sequence[Logged], acknowledged: Mapping[tuple[str, str], Sequence[int]]) -> Iterator[str]:
    """Tell what is wrong with the log itself: revisions that are missing, twice, or out of order."""
    saved: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in log:
        if one.type == 1:
            saved[one.agent_id, one.session_name].append(one.revision)
    for session, revisions in saved.items():
        if revisions != list(range(1, len(revisions) + 1)):
            yield f"{session}: SAVED in the log as {_cut(revisions)}"
    for session, promised in acknowledged.items():
        if missing := set(promised) - set(saved[session]):
            yield f"{session}: acknowledged and not in the log: {_cut(sorted(missing))}"


def _is_wanted(one: Logged, types: Sequence[int], agent_id: str) -> bool:
    return one.type in types and agent_id in ("", one.agent_id)


def _is_same(one: Received, logged: Logged) -> bool:
    return one[1:5] == (logged.type, logged.agent_id, logged.session_name, logged.revision)


def _cut(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + ("" if len(numbers) <= 20 else " …")
