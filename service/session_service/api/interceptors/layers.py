"""The layers around a call that need nothing but the call: request id, caller, errors, count."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import grpc

from session_service.api.errors import DeadlineExceeded, to_caller
from session_service.api.interceptors.call import Call
from session_service.api.interceptors.pipeline import Context
from session_service.auth.principal import ANONYMOUS
from session_service.sessions.errors import ShuttingDown

REQUEST_ID_HEADER = "x-request-id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_DETAILS_HEADER = "grpc-status-details-bin"


@asynccontextmanager
async def request_id(call: Call, context: Context) -> AsyncIterator[None]:
    """Name the call by the caller's x-request-id if it is sane, else by a new one; send it back."""
    call.request_id = _given_request_id(context) or uuid.uuid4().hex
    context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))
    yield


def _given_request_id(context: Context) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID_HEADER and isinstance(value, str) and _SANE_REQUEST_ID.fullmatch(value):
            return value
    return None


@asynccontextmanager
async def authentication(call: Call, _: Context) -> AsyncIterator[None]:
    """Tell who calls. There are no credentials yet: everyone is anonymous."""
    call.principal = ANONYMOUS
    yield


@asynccontextmanager
async def errors(call: Call, context: Context) -> AsyncIterator[None]:
    """Turn exceptions into statuses, and note in the call how it ended.

    Around authentication, so that its refusals are told in the same way.
    """
    try:
        yield
        call.code = _code(context) or grpc.StatusCode.OK
    except grpc.aio.AbortError:
        # A servicer from elsewhere (health, reflection) has told its caller itself.
        call.code = _code(context) or grpc.StatusCode.UNKNOWN
        raise
    except asyncio.CancelledError as cancelled:
        if not _is_cancelled():
            await _tell(call, context, cancelled)  # something within was cancelled, not the call
        late = _deadline_has_passed(context)
        call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        raise
    except TimeoutError as error:
        late = _deadline_has_passed(context)
        await _tell(call, context, DeadlineExceeded("the deadline has passed") if late else error)
    except Exception as error:
        await _tell(call, context, error)


async def _tell(call: Call, context: Context, error: BaseException) -> None:
    told = to_caller(error, call.request_id)
    call.code, call.reason = told.code, told.reason
    call.failure = error if told.code is grpc.StatusCode.INTERNAL else None
    trailing = ((_DETAILS_HEADER, told.details), (REQUEST_ID_HEADER, call.request_id))
    await context.abort(told.code, told.message, trailing)


def _code(context: Context) -> grpc.StatusCode | None:
    # Typed as always there; None until somebody sets it.
    return cast("grpc.StatusCode | None", context.code())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _deadline_has_passed(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0


class CallsInFlight:
    """Counts the calls that a stop waits for, all but those of the infrastructure; refuses new ones when told to."""

    def __init__(self) -> None:
        self._count = 0
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def layer(self, call: Call, _: Context) -> AsyncIterator[None]:
        """Count a call while it goes on."""
        if call.is_infrastructure:
            yield
            return
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    def refuse(self) -> None:
        """Let no new call in: the server is about to stop."""
        self._refusing = True

    @asynccontextmanager
    async def admission(self, call: Call, _: Context) -> AsyncIterator[None]:
        """Refuse a call that comes too late. Within the layer that tells errors."""
        if self._refusing and not call.is_infrastructure:
            raise ShuttingDown("the server is shutting down")
        yield

    @property
    def count(self) -> int:
        """Calls going on now."""
        return self._count

    async def wait_until_idle(self) -> None:
        """Wait until there is none."""
        await self._idle.wait()
