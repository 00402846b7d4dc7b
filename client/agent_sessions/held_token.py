"""Resume tokens of a live agent, held back while what it applied is not saved."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from agent_sessions.watch import KeepToken


class HeldToken:
    """Gives tokens to keep_token, but none while a restore that was applied has not been saved.

    A worker that goes on from a kept token reads the newest revision first, and that is not yet what was restored:
    it has to be told of the restore again. Of the tokens that are held back the newest is given.
    """

    def __init__(self) -> None:
        self._keep: KeepToken | None = None
        self._token = b""
        """To be given; empty when there is none."""
        self._is_unsaved = False
        self._restores_under_way = 0
        self._is_giving = False

    def begin(self, keep: KeepToken | None) -> None:
        """Give the tokens of a stream that is about to be opened to this one, and forget those of the one before."""
        self._keep, self._token = keep, b""

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Hold tokens back during a restore of one's own: its event may come before its answer."""
        self._restores_under_way += 1
        try:
            yield
        finally:
            self._restores_under_way -= 1

    def applied(self) -> None:
        """Note that a restore was applied."""
        self._is_unsaved = True

    def saved(self) -> None:
        """Note that what is there was saved; `give` may follow."""
        self._is_unsaved = False

    async def done_with(self, token: bytes) -> None:
        """Give this token, now or later. Raises what keep_token does."""
        self._token = token
        await self.give()

    async def give(self) -> None:
        """Give the newest token, if there is one that may be given; where it is not taken, it is held on to."""
        if self._is_giving:  # by another task, which gives a newer one, too; or keep_token itself has saved
            return
        self._is_giving = True
        try:
            while self._keep is not None and self._may_give():
                token = self._token
                kept = self._keep(token)
                if inspect.isawaitable(kept):
                    await kept
                if self._token == token:
                    self._token = b""
        finally:
            self._is_giving = False

    def _may_give(self) -> bool:
        return bool(self._token) and not self._is_unsaved and not self._restores_under_way
