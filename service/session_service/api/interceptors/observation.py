"""The layers that tell operators about a call: its log line and its metrics."""

from typing import Any

import structlog
from grpc import StatusCode

from session_service.api.interceptors.call import Call, Context
from session_service.call_tally import CallSeries
from session_service.logging import printable
from session_service.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)
_SERVER_FAULTS = {StatusCode.INTERNAL, StatusCode.DATA_LOSS, StatusCode.UNKNOWN}
_WARNINGS = {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED}


class Log:
    """Writes one line when a call has ended; an INTERNAL error with its traceback."""

    def begin(self, call: Call, context: Context) -> None:
        """See Layer."""

    def end(self, call: Call) -> None:
        """See Layer."""
        if call.is_infrastructure:
            _log.debug("call", **_fields(call))
        elif call.code in _SERVER_FAULTS:
            _log.error("call", **_fields(call), exc_info=call.failure)
        elif call.code in _WARNINGS:
            _log.warning("call", **_fields(call))
        else:
            _log.info("call", **_fields(call))


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

    def begin(self, call: Call, _: Context) -> None:
        """See Layer."""
        self._series(call).started += 1

    def end(self, call: Call) -> None:
        """See Layer."""
        self._series(call).handled(call.code.name, call.seconds(), call.messages_received, call.messages_sent)
        if call.reason:
            self._metrics.error(call.reason)

    def _series(self, call: Call) -> CallSeries:
        # Invented names would make a new series each.
        service, method = (call.service, call.method_name) if call.known else ("unknown", "unknown")
        return self._metrics.calls.series(call.kind, service, method)
