"""What a store tells about its work, for metrics."""

from typing import Protocol


class Observer(Protocol):
    """Hears of work that was done. Implementations must not raise."""

    def saved(self, kind: str, placement: str, messages: int, content_bytes: int, stored_bytes: int) -> None:
        """A revision was stored.

        kind: "snapshot", "delta" or "upload", as it was sent. placement: "append", "prefix", "branch" or "whole", by
        how its messages were placed; messages and stored_bytes (compressed) are what was written, content_bytes the
        size of the state saved.
        """

    def flushed(self, saves: int, seconds: float) -> None:
        """A batch of saves was committed in one transaction."""

    def restored(self, messages: int, content_bytes: int) -> None:
        """A state was read."""

    def corrupted(self) -> None:
        """Damaged data was found."""

    def collected(self, table: str, rows: int) -> None:
        """Rows of a table were removed that nothing needed; perhaps none."""

    def collecting(self, seconds: float) -> None:
        """The collector worked for so long."""

    def trimmed(self, events: int, seconds: float) -> None:
        """Old events were removed, perhaps none, which took so long."""

    def log_reaches_back(self, seconds: float) -> None:
        """The oldest event that is kept is so old; 0: there is none."""


class PackingObserver(Protocol):
    """Hears of packing. Implementations must not raise."""

    def packed(self, messages: int, segments: int, bytes_before: int, bytes_after: int, seconds: float) -> None:
        """So many segments, with so many messages, were replaced by one.

        bytes: of their payloads, as they are stored. seconds: what the transaction took.
        """

    def packing_found_damage(self) -> None:
        """A damaged segment was left as it is."""


class SilentPackingObserver:
    """Ignores everything."""

    def packed(self, messages: int, segments: int, bytes_before: int, bytes_after: int, seconds: float) -> None:
        """Nothing."""

    def packing_found_damage(self) -> None:
        """Nothing."""


class SilentObserver:
    """Ignores everything."""

    def saved(self, kind: str, placement: str, messages: int, content_bytes: int, stored_bytes: int) -> None:
        """Nothing."""

    def flushed(self, saves: int, seconds: float) -> None:
        """Nothing."""

    def restored(self, messages: int, content_bytes: int) -> None:
        """Nothing."""

    def corrupted(self) -> None:
        """Nothing."""

    def collected(self, table: str, rows: int) -> None:
        """Nothing."""

    def collecting(self, seconds: float) -> None:
        """Nothing."""

    def trimmed(self, events: int, seconds: float) -> None:
        """Nothing."""

    def log_reaches_back(self, seconds: float) -> None:
        """Nothing."""
