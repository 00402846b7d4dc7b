"""How a call's exception becomes its status."""

import asyncio
from typing import cast

import grpc

from session_service.api.errors import DeadlineExceeded, to_caller
from session_service.api.interceptors.call import Call, Context

REQUEST_ID_HEADER = "x-request-id"
_PATIENCE = 5.0
"""Seconds for a status to leave."""
_DETAILS_HEADER = "grpc-status-details-bin"


class CallerGone(Exception):
    """An answer could not be sent: whoever asked is not there any more."""


def note_success(call: Call, context: Context) -> None:
    """Note in the call that it was answered."""
    call.code = _code(context) or grpc.StatusCode.OK


async def tell(call: Call, context: Context, error: BaseException) -> None:
    """Turn an exception into a status for the caller, note in the call how it ended, and raise if somebody is told."""
    if isinstance(error, CallerGone):
        late = _deadline_has_passed(context)
        call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        return
    if isinstance(error, grpc.aio.AbortError):
        # A servicer from elsewhere (health, reflection) has told its caller itself.
        call.code = _code(context) or grpc.StatusCode.UNKNOWN
        raise error
    if isinstance(error, asyncio.CancelledError) and _is_cancelled():
        late = _deadline_has_passed(context)
        call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        raise error
    if isinstance(error, TimeoutError) and _deadline_has_passed(context):
        error = DeadlineExceeded("the deadline has passed")
    if not isinstance(error, Exception | asyncio.CancelledError):
        raise error  # the process is about to end
    # A CancelledError that comes this far was within: the call itself was not cancelled.
    told = to_caller(error, call.request_id)
    call.code, call.reason = told.code, told.reason
    call.failure = error if told.code is grpc.StatusCode.INTERNAL else None
    trailing = ((_DETAILS_HEADER, told.details), (REQUEST_ID_HEADER, call.request_id))
    try:
        async with asyncio.timeout(_PATIENCE):
            await context.abort(told.code, told.message, trailing)
    except TimeoutError:
        # The status waits behind answers that the caller does not read. It is told when it does; nobody waits for that.
        raise grpc.aio.AbortError(told.message) from None


def _code(context: Context) -> grpc.StatusCode | None:
    # Typed as always there; None until somebody sets it.
    return cast("grpc.StatusCode | None", context.code())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _deadline_has_passed(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0
