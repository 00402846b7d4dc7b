"""When a failed attempt is made again, and how long to wait before it."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from grpc import StatusCode

from agent_sessions.errors import DeadlineExceeded, SessionServiceError

_Result = TypeVar("_Result")

_SHORTEST_ATTEMPT = 0.01
"""Seconds; with less time left than this, another attempt could not succeed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter, in seconds, inside the call's timeout."""

    initial_backoff: float = 0.1
    """The first wait is a random time between 0 and this."""
    multiplier: float = 2.0
    """Each further wait may be this many times longer …"""
    max_backoff: float = 2.0
    """… but never longer than this. The server's own retry_delay is always waited for in full."""
    max_attempts: int | None = None
    """None: as many as the timeout has room for. 1: no retry."""

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        if self.initial_backoff < 0 or self.max_backoff < 0 or self.multiplier < 1:
            raise ValueError("back-off times are at least 0, and the multiplier at least 1")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts is at least 1, not {self.max_attempts}")

    def allows(self, attempts: int) -> bool:
        """Tell whether another attempt may follow so many."""
        return self.max_attempts is None or attempts < self.max_attempts

    def backoff(self, attempts: int) -> float:
        """Return how long to wait after so many failed attempts (1 or more)."""
        # The exponent is bounded because a float overflows at about 1,000 doublings.
        ceiling = self.initial_backoff * self.multiplier ** min(attempts - 1, 64)
        return random.uniform(0, min(ceiling, self.max_backoff))  # noqa: S311 – spreads load, no secret


NO_RETRY = RetryPolicy(max_attempts=1)
"""One attempt only."""


def is_retryable(error: SessionServiceError) -> bool:
    """Tell whether the same request may succeed later."""
    match error.code:
        case StatusCode.UNAVAILABLE:
            return True
        case StatusCode.ABORTED:
            return error.reason == "SERIALIZATION"
        case StatusCode.RESOURCE_EXHAUSTED:
            return error.retry_delay is not None
        case _:
            return False


async def with_retries(
    attempt: Callable[[float], Awaitable[_Result]], *, timeout: float, policy: RetryPolicy
) -> _Result:
    """Call `attempt` with the seconds that are left (inf: no bound) until it succeeds.

    Raises DeadlineExceeded when the timeout passes, with the last failure as
    `last_error`; else the attempt's own error: when it is not retryable, when the
    policy allows no more, or when the server asks for a longer wait than is left.
    """
    started = time.monotonic()
    retries: Retries | None = None
    left = max(0.0, timeout)
    while True:
        try:
            return await attempt(left)
        except SessionServiceError as error:
            retries = retries or Retries(started, timeout, policy)
            left = await retries.wait_after(error)


class Retries:
    """The failed attempts of one call; made when the first one has failed.

    Arguments:
        started: when the call began, by time.monotonic.
        timeout: of the whole call, in seconds; inf: no bound.
        policy: the call's policy.
    """

    def __init__(self, started: float, timeout: float, policy: RetryPolicy) -> None:
        self._timeout = timeout
        self._deadline = started + timeout
        self._policy = policy
        self._attempts = 0
        self._last_error: SessionServiceError | None = None

    async def wait_after(self, error: SessionServiceError) -> float:
        """Wait until the next attempt is due; return the seconds left for it. Raises as `with_retries` does."""
        if isinstance(error, DeadlineExceeded):
            error.last_error = self._last_error
            raise error
        self._attempts += 1
        if not is_retryable(error) or not self._policy.allows(self._attempts):
            raise error
        self._last_error = error
        delay = _delay(error, self._policy.backoff(self._attempts), self._deadline - time.monotonic())
        if delay is None:
            raise _out_of_time(self._timeout, self._attempts, error) from error
        await asyncio.sleep(delay)
        return max(0.0, self._deadline - time.monotonic())


def _delay(error: SessionServiceError, backoff: float, left: float) -> float | None:
    """Return how long to wait; None: time is up. Raises `error` if the server asks for too long a wait."""
    asked = error.retry_delay or 0.0
    if left <= _SHORTEST_ATTEMPT:
        return None
    if asked >= left:
        raise error
    # At most half of what is left: a server that comes back in time is found in time.
    return asked + min(backoff, (left - asked) / 2)


def _out_of_time(timeout: float, attempts: int, last_error: SessionServiceError) -> DeadlineExceeded:
    shown = "" if math.isinf(timeout) else f" within {timeout:g} s"
    count = f"{attempts} attempt{'s' if attempts > 1 else ''}"
    error = DeadlineExceeded(f"no success{shown}, {count}")
    error.last_error = last_error
    return error
