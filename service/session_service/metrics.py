"""Every metric of the service, with a registry of its own.

Names and labels of calls are those of the gRPC ecosystem; the product's own
begin with `session_service_`. No label holds what a caller made up.
"""

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from session_service.call_tally import SECONDS, CallTally
from session_service.save_tally import SaveTally
from session_service.watch_tally import WatchTally

_SAVES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What the service counts. It is also the stores' Observer."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.calls = CallTally(self.registry)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        info = self._gauge("build_info", "Always 1; the labels tell the build.", "version", "python_version")
        info.labels(version, platform.python_version()).set(1)
        self._database_up = self._gauge("database_up", "1 while PostgreSQL answers, else 0.")
        self._errors = self._counter("errors_total", "RPCs that ended with an error, by reason.", "reason")
        self.saved = SaveTally(self.registry).saved
        self.watching = WatchTally(self.registry)
        self._restores = self._counter("restores_total", "States read.")
        self._restored_messages = self._counter("restored_messages_total", "Messages read.")
        self._restored_bytes = self._counter("restored_content_bytes_total", "Size of states read, in bytes.")
        self._corruptions = self._counter("corruptions_total", "Times that damaged data was found.")
        self._flush_saves = self._histogram("flush_saves", "Saves committed together.", _SAVES)
        self._flush_seconds = self._histogram("flush_seconds", "Duration of a commit, in seconds.", SECONDS)
        self._packed_messages = self._counter("packed_messages_total", "Messages written anew by packing.")
        self._packed_segments = self._counter("packed_segments_total", "Segments replaced by larger ones.")
        self._packed_before = self._counter("packing_before_bytes_total", "Stored bytes of segments replaced.")
        self._packed_after = self._counter(
            "packing_after_bytes_total", "Stored bytes of segments that replaced others."
        )
        self._packing_seconds = self._histogram(
            "packing_seconds", "Duration of the transactions that replace segments, in seconds.", SECONDS
        )
        self._packing_damage = self._counter("packing_damaged_total", "Damaged segments that packing left as they are.")
        self._collected = self._counter("collected_rows_total", "Rows removed that nothing needed, by table.", "table")
        self._collect_seconds = self._histogram("collect_seconds", "Duration of a step of the collector.", SECONDS)
        self._trimmed = self._counter("trimmed_events_total", "Events removed that were older than the log is kept.")
        self._trim_seconds = self._histogram("trim_seconds", "Duration of a step of trimming the log.", SECONDS)
        self._log_age = self._gauge("event_log_age_seconds", "Age of the oldest event that is kept.")

    def error(self, reason: str) -> None:
        """Count an error of that reason."""
        self._errors.labels(reason).inc()

    def database(self, up: bool) -> None:
        """Note whether the database was reached."""
        self._database_up.set(int(up))

    def flushed(self, saves: int, seconds: float) -> None:
        """Count saves that one transaction committed, and its duration."""
        self._flush_saves.observe(saves)
        self._flush_seconds.observe(seconds)

    def restored(self, messages: int, content_bytes: int) -> None:
        """Count a state read."""
        self._restores.inc()
        self._restored_messages.inc(messages)
        self._restored_bytes.inc(content_bytes)

    def corrupted(self) -> None:
        """Count damaged data found."""
        self._corruptions.inc()

    def packed(self, messages: int, segments: int, bytes_before: int, bytes_after: int, seconds: float) -> None:
        """Count segments replaced by one: see PackingObserver."""
        self._packed_messages.inc(messages)
        self._packed_segments.inc(segments)
        self._packed_before.inc(bytes_before)
        self._packed_after.inc(bytes_after)
        self._packing_seconds.observe(seconds)

    def packing_found_damage(self) -> None:
        """Count a damaged segment found."""
        self._packing_damage.inc()

    def collected(self, table: str, rows: int) -> None:
        """Count rows of a table that were removed."""
        self._collected.labels(table).inc(rows)

    def collecting(self, seconds: float) -> None:
        """Note the duration of a step of the collector."""
        self._collect_seconds.observe(seconds)

    def trimmed(self, events: int, seconds: float) -> None:
        """Count events that were trimmed, and note how long that took."""
        self._trimmed.inc(events)
        self._trim_seconds.observe(seconds)

    def log_reaches_back(self, seconds: float) -> None:
        """Note the age of the oldest event that is kept."""
        self._log_age.set(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"session_service_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"session_service_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"session_service_{name}", text, buckets=buckets, registry=self.registry)
