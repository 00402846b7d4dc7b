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
