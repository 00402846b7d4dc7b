"""What the feed and the hub tell about their work, for metrics."""

from typing import Protocol


class WatchObserver(Protocol):
    """Hears of watching. Implementations must not raise."""

    def watches(self, count: int) -> None:
        """There are so many now."""

    def delivered(self, seconds: float) -> None:
        """A watch gave an event to its caller, who took it; so long after it happened, by the servers' clocks."""

    def replayed(self, reason: str) -> None:
        """A watch began to read the log by itself: "resumed" with a token, or "slow"."""

    def dropped(self, reason: str) -> None:
        """A watch was ended by the server: "slow", "expired", "too_many", "log_changed"."""

    def feed_read(self, events: int, seconds: float) -> None:
        """The feed read the log, which took so long."""

    def watermark(self, age: float) -> None:
        """For so many seconds the oldest running transaction has held back what is newer; 0: nothing is held back."""


class SilentWatchObserver:
    """Ignores everything."""

    def watches(self, count: int) -> None:
        """Nothing."""

    def delivered(self, seconds: float) -> None:
        """Nothing."""

    def replayed(self, reason: str) -> None:
        """Nothing."""

    def dropped(self, reason: str) -> None:
        """Nothing."""

    def feed_read(self, events: int, seconds: float) -> None:
        """Nothing."""

    def watermark(self, age: float) -> None:
        """Nothing."""
