"""What a run came to, as text."""

from collections.abc import Iterator, Mapping

from tests.soak.run import Outcome

COLUMNS = ("watcher", "wanted", "delivered", "repeats", "reconnects", "lost", "out of order", "false")


def lines(outcome: Outcome) -> Iterator[str]:
    """Tell everything, line by line."""
    share = 100 * outcome.rolled_back / max(outcome.transactions, 1)
    yield f"{len(outcome.log):,} events in the log, after {outcome.seconds:.0f} s"
    yield f"{outcome.transactions:,} transactions logged events; rolled back: {outcome.rolled_back:,} ({share:.1f} %)"
    yield f"{outcome.kills} servers killed, {outcome.terminations} connections cut"
    yield f"watches that read the log because they were slow: {outcome.fell_behind}"
    yield f"errors that writers got to see: {_counts(outcome.failed) or 'none'}"
    yield from _table(outcome)
    for one in outcome.watchers:
        yield f'streams of the watcher "{one.name}" ended: {_counts(one.ends) or "never"}'
    yield from outcome.problems
    yield "everything was delivered, in order" if outcome.is_good else f"NOT GOOD: {outcome.lost:,} deliveries lost"


def _table(outcome: Outcome) -> Iterator[str]:
    rows = [list(COLUMNS)]
    for one in outcome.watchers:
        verdict = outcome.verdicts[one.name]
        came = (verdict.wanted, verdict.delivered, verdict.repeats, one.streams - 1)
        wrong = (verdict.lost, verdict.out_of_order, verdict.false)
        rows.append([one.name, *(f"{number:,}" for number in (*came, *wrong))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        right = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *right])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
