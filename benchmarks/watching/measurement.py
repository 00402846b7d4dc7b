"""One round of a case of watching."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.cases import COST_CASES, Case, parse
from benchmarks.database import Cluster
from benchmarks.results import Watching
from benchmarks.watching import cost, latency, saves, streams
from benchmarks.watching.rig import Figures
from benchmarks.watching.sizes import COST, LATENCY, SAVES, STREAMS, Sizes

Work = Callable[[Case], dict[str, Any]]
"""What a worker's `take` needs for a case; raises ValueError where files are missing."""


async def measure(cluster: Cluster, template: str, case: Case, sizes: Sizes, work: Work, round_: int) -> Watching:
    """Measure in fresh copies of `template`, which has our tables."""
    figures = await _measure(cluster, template, case.work, sizes, work)
    return Watching(round=round_, case=str(case), sizes=asdict(sizes), figures=figures)


async def _measure(cluster: Cluster, template: str, case: str, sizes: Sizes, work: Work) -> Figures:
    if case == LATENCY:
        return await latency.measure(cluster, template, sizes)
    if case == STREAMS:
        return await streams.measure(cluster, template, sizes)
    if case == SAVES:
        return await saves.measure(cluster, template, sizes, work(saves.CASE))
    assert case == COST
    return await cost.measure(cluster, template, sizes, _cost_works(work))


def _cost_works(work: Work) -> Mapping[Case, dict[str, Any]]:
    found = {}
    for case in parse(COST_CASES):
        try:
            found[case] = work(case)
        except ValueError:  # no recorded conversations
            continue
    return found
