"""What happens around a call and needs nothing but the call: its id, its caller, the count of calls."""

import asyncio
import os
import re

from session_service.api.interceptors.call import Call, Context
from session_service.api.interceptors.failures import REQUEST_ID_HEADER
from session_service.auth.principal import ANONYMOUS
from session_service.sessions.errors import ShuttingDown

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """Names the call by the caller's x-request-id if it is sane, else by a new one; sends it back."""

    def begin(self, call: Call, context: Context) -> None:
        """See Layer."""
        call.request_id = _given_request_id(context) or os.urandom(16).hex()
        context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))

    def end(self, call: Call) -> None:
        """See Layer."""


def _given_request_id(context: Context) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID_HEADER and isinstance(value, str) and _SANE_REQUEST_ID.fullmatch(value):
            return value
    return None


def authenticate(call: Call, _: Context) -> None:
    """Tell who calls. There are no credentials yet: everyone is anonymous."""
    call.principal = ANONYMOUS


class CallsInFlight:
    """Counts the calls that a stop waits for, all but those of the infrastructure; refuses new ones when told to."""

    def __init__(self) -> None:
        self._count = 0
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, call: Call, _: Context) -> None:
        """See Layer."""
        if not call.is_infrastructure:
            self._count += 1
            self._idle.clear()

    def end(self, call: Call) -> None:
        """See Layer."""
        if not call.is_infrastructure:
            self._count -= 1
            if not self._count:
                self._idle.set()

    def refuse(self) -> None:
        """Let no new call in: the server is about to stop."""
        self._refusing = True

    def admit(self, call: Call, _: Context) -> None:
        """Refuse a call that comes too late."""
        if self._refusing and not call.is_infrastructure:
            raise ShuttingDown("the server is shutting down")

    @property
    def count(self) -> int:
        """Calls going on now."""
        return self._count

    async def wait_until_idle(self) -> None:
        """Wait until there is none."""
        await self._idle.wait()
