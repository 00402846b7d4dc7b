"""What is counted for every call, in plain numbers: see `save_tally`.

Names and labels are those of the gRPC ecosystem's server metrics.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the histogram's buckets."""

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class CallSeries:
    """The numbers of one method."""

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        self.sent = 0
        self.codes: Counter[str] = Counter()
        self.seconds = 0.0
        self.buckets = [0] * (len(SECONDS) + 1)

    def handled(self, code: str, seconds: float, received: int, sent: int) -> None:
        """Count a call that ended: name of its status code, seconds, messages in and out."""
        self.codes[code] += 1
        self.seconds += seconds
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.received += received
        self.sent += sent


class CallTally(Collector):
    """The numbers of all methods, read when the registry is scraped. To be counted up from one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._series: dict[tuple[str, str, str], CallSeries] = {}
        registry.register(self)

    def series(self, kind: str, service: str, method: str) -> CallSeries:
        """The numbers of a method."""
        labels = (kind, service, method)
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = CallSeries()
        return found

    def collect(self) -> Iterator[Metric]:
        """Give the numbers as metrics."""
        series = [*self._series.items()]
        yield _counter("started", "RPCs started.", ((labels, one.started) for labels, one in series))
        yield _counter("msg_received", "Request messages received.", ((labels, one.received) for labels, one in series))
        yield _counter("msg_sent", "Response messages sent.", ((labels, one.sent) for labels, one in series))
        codes = (((*labels, code), count) for labels, one in series for code, count in [*one.codes.items()])
        yield _counter("handled", "RPCs ended, by status code.", codes, "grpc_code")
        seconds = HistogramMetricFamily("grpc_server_handling_seconds", "Duration of RPCs, in seconds.", labels=_LABELS)
        for labels, one in series:
            buckets = zip((*map(floatToGoString, SECONDS), "+Inf"), accumulate(one.buckets), strict=True)
            seconds.add_metric(labels, [*buckets], one.seconds)
        yield seconds


def _counter(name: str, text: str, values: Iterable[tuple[tuple[str, ...], int]], *more: str) -> Metric:
    family = CounterMetricFamily(f"grpc_server_{name}", text, labels=(*_LABELS, *more))
    for labels, value in values:
        family.add_metric(labels, value)
    return family
