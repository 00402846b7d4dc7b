"""What is counted for every save, in plain numbers: a metric object for each would cost more than the counting."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class SaveTally(Collector):
    """Sums, read when the registry is scraped. To be used from one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._saves: Counter[tuple[str, str]] = Counter()
        self._messages = self._content_bytes = self._stored_bytes = 0
        registry.register(self)

    def saved(self, kind: str, placement: str, messages: int, content_bytes: int, stored_bytes: int) -> None:
        """Count a revision stored: see Observer.saved."""
        self._saves[kind, placement] += 1
        self._messages += messages
        self._content_bytes += content_bytes
        self._stored_bytes += stored_bytes

    def collect(self) -> Iterator[Metric]:
        """Give the sums as metrics."""
        saves = CounterMetricFamily(
            "session_service_saves",
            "Revisions stored, by what was sent (kind: snapshot, delta, upload) and how it was placed (placement).",
            labels=("kind", "placement"),
        )
        for labels, count in [*self._saves.items()]:
            saves.add_metric(labels, count)
        yield saves
        for name, text, value in (
            ("saved_messages", "Messages stored.", self._messages),
            ("saved_content_bytes", "Size of states saved, in bytes.", self._content_bytes),
            ("stored_bytes", "Bytes written, after compression.", self._stored_bytes),
        ):
            yield CounterMetricFamily(f"session_service_{name}", text, value=value)
