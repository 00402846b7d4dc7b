"""What is counted of watching, in plain numbers where there is one for each delivery: see `save_tally`."""

import time
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from session_service.call_tally import SECONDS


class WatchTally(Collector):
    """The feed's and the hub's WatchObserver. To be used from one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = [0] * (len(SECONDS) + 1)
        self._lag_sum = 0.0
        self._watches = Gauge("session_service_watches", "Watches going on.", registry=registry)
        self._replays = Counter(
            "session_service_watch_replays",
            "Times that a watch began to read the log by itself, by reason: resumed with a token, or slow.",
            ["reason"],
            registry=registry,
        )
        self._drops = Counter(
            "session_service_watch_drops",
            "Watches that the server ended, by reason: slow, expired, too_many, log_changed.",
            ["reason"],
            registry=registry,
        )
        self._feed_events = Counter("session_service_feed_events", "Events that the feed read.", registry=registry)
        self._feed_seconds = Histogram(
            "session_service_feed_read_seconds", "Duration of the feed's reads.", buckets=SECONDS, registry=registry
        )
        self._watermark_age = Gauge(
            "session_service_event_watermark_age_seconds",
            "How long the oldest running transaction of the PostgreSQL cluster has held back the events after it.",
            registry=registry,
        )
        self._read_at = time.monotonic()
        age = Gauge(
            "session_service_feed_age_seconds",
            "Time since the feed last read the log: about --event-poll-interval at most while all is well.",
            registry=registry,
        )
        age.set_function(lambda: time.monotonic() - self._read_at)
        registry.register(self)

    def watches(self, count: int) -> None:
        """See WatchObserver."""
        self._watches.set(count)

    def delivered(self, seconds: float) -> None:
        """See WatchObserver."""
        self._lag[bisect_left(SECONDS, seconds)] += 1
        self._lag_sum += max(0.0, seconds)  # clocks of two servers differ

    def replayed(self, reason: str) -> None:
        """See WatchObserver."""
        self._replays.labels(reason).inc()

    def dropped(self, reason: str) -> None:
        """See WatchObserver."""
        self._drops.labels(reason).inc()

    def feed_read(self, events: int, seconds: float) -> None:
        """See WatchObserver."""
        self._read_at = time.monotonic()
        self._feed_events.inc(events)
        self._feed_seconds.observe(seconds)

    def watermark(self, age: float) -> None:
        """See WatchObserver."""
        self._watermark_age.set(age)

    def collect(self) -> Iterator[Metric]:
        """Give the numbers as metrics."""
        counts, total = [], 0
        for bound, count in zip([*map(floatToGoString, SECONDS), "+Inf"], self._lag, strict=True):
            total += count
            counts.append((bound, total))
        delivered = CounterMetricFamily("session_service_events_delivered", "Events given to watches.")
        delivered.add_metric((), total)
        yield delivered
        lag = HistogramMetricFamily(
            "session_service_event_lag_seconds", "Time from an event to its delivery, by the clocks of the servers."
        )
        lag.add_metric((), counts, self._lag_sum)
        yield lag
