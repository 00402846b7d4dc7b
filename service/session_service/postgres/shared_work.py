"""Work in batches, of which another thread takes as many as it gets to.

For what leaves the interpreter to others most of the time, as unpacking does. Whoever asks never waits for a thread
that has no time: what the other one has not taken, it does by itself.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

HELPERS = (os.cpu_count() or 1) - 1
"""Threads at a time beside those that ask: one for each processor that is left."""

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

_free = threading.Semaphore(HELPERS)


def share(work: Callable[[_Batch], _Result], batches: Sequence[_Batch]) -> list[_Result]:
    """What `work` makes of each batch, in their order.

    Raises: what it raised for one of them; others may then not have been looked at.
    """
    shared = _Shared(work, batches)
    if len(batches) < 2 or not _free.acquire(blocking=False):
        return shared.results_alone()
    try:
        return shared.results_with_help()
    finally:
        _free.release()


class _Shared(Generic[_Batch, _Result]):
    """The batches that nobody has taken yet, and what became of the others."""

    def __init__(self, work: Callable[[_Batch], _Result], batches: Sequence[_Batch]) -> None:
        self._work = work
        self._left = deque(enumerate(batches))
        self._results: list[Any] = [None] * len(batches)
        self._error: BaseException | None = None

    def results_alone(self) -> list[_Result]:
        """Does everything in this thread. Raises: what the work raises."""
        self._run()
        return self._results

    def results_with_help(self) -> list[_Result]:
        """Lets another thread do what it can. Raises: what the work raises."""
        # A new one each time. Linux begins a thread on the processor that has the least to do; one that waited wakes
        # up where it is woken from, and both take turns there, for longer than such work lasts.
        helper = threading.Thread(target=self._help, name="shared-work", daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the process may not have more of them
            return self.results_alone()
        try:
            self._run()
        finally:
            helper.join()
        if self._error is not None:
            raise self._error
        return self._results

    def _help(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told by the thread that asked
            self._error = error

    def _run(self) -> None:
        while self._left:
            try:
                place, batch = self._left.popleft()
            except IndexError:  # the other one was faster
                return
            try:
                self._results[place] = self._work(batch)
            except BaseException:
                self._left.clear()
                raise
