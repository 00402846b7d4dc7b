"""The layers that tell operators about a call: its log line and its metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from grpc import StatusCode

from session_service.api.interceptors.call import Call
from session_service.api.interceptors.pipeline import Context
from session_service.logging import printable
from session_service.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)
_SERVER_FAULTS = {StatusCode.INTERNAL, StatusCode.DATA_LOSS, StatusCode.UNKNOWN}
_WARNINGS = {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED}


@asynccontextmanager
async def log(call: Call, _: Context) -> AsyncIterator[None]:
    """Write one line when the call has ended; an INTERNAL error with its traceback."""
    try:
        yield
    finally:
        fields = _fields(call)
        if call.is_infrastructure:
            _log.debug("call", **fields)
        elif call.code in _SERVER_FAULTS:
            _log.error("call", **fields, exc_info=call.failure)
        elif call.code in _WARNINGS:
            _log.warning("call", **fields)
        else:
            _log.info("call", **fields)


def _fields(call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "method": printable(call.method),
        "code": call.code.name,
        "duration_ms": round(call.seconds() * 1000, 3),
        "tenant": call.principal.tenant,
        "request_bytes": call.request_bytes,
        "response_bytes": call.response_bytes,
        "request_id": call.request_id,
        "peer": call.peer,
    }
    told = {"agent_id": call.agent_id, "session_name": call.session_name, "reason": call.reason}
    return fields | {name: printable(value) for name, value in told.items() if value}


class CallMetrics:
    """Counts and times calls."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def layer(self, call: Call, _: Context) -> AsyncIterator[None]:
        """Count a call's start, its end, its messages."""
        # Invented names would make a new series each.
        service, method = (call.service, call.method_name) if call.known else ("unknown", "unknown")
        labels = self._metrics.call(call.kind, service, method)
        labels.started()
        try:
            yield
        finally:
            labels.handled(call.code.name, call.seconds(), call.messages_received, call.messages_sent)
            if call.reason:
                self._metrics.error(call.reason)
