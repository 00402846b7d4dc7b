"""One RPC as the layers around it see it."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import grpc
from grpc import StatusCode

from session_service.auth.principal import ANONYMOUS, Principal

# Generic in the stubs only, so as text.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_QUIET = ("grpc.health.", "grpc.reflection.")
"""Services of the infrastructure: no data, many calls, streams that stay open."""


@dataclass(slots=True)
class Call:
    """What is known about a call; filled in while it goes on."""

    method: str
    """As the caller wrote it, for example `/agent_sessions.v1.SessionService/SaveSession`."""
    kind: str
    """unary, client_stream, server_stream or bidi_stream."""
    known: bool = True
    """False for a method that the server does not have: its name is the caller's invention."""
    request_id: str = ""
    peer: str = ""
    principal: Principal = ANONYMOUS
    agent_id: str = ""
    """From the first request message, as it came: not checked yet."""
    session_name: str = ""
    """From the first request message, as it came: not checked yet."""
    request_bytes: int = 0
    response_bytes: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    is_read_to_its_end: bool = False
    """Whether a stream of requests is read to its end before a refusal is told: the caller goes on sending, and some
    gRPC libraries (Python's asyncio one) take a status that comes while they write for a broken connection."""
    code: StatusCode = StatusCode.UNKNOWN
    """How it ended; UNKNOWN until then."""
    reason: str = ""
    """The reason of the error; empty if there is none."""
    failure: BaseException | None = None
    """The exception behind an INTERNAL error, for the server's own log."""
    started: float = field(default_factory=time.monotonic)

    @property
    def service(self) -> str:
        """The method's service, with its package."""
        return _parts(self.method)[0]

    @property
    def method_name(self) -> str:
        """The method without its service."""
        return _parts(self.method)[1]

    @property
    def is_infrastructure(self) -> bool:
        """Whether this is a health check or reflection."""
        return self.known and _parts(self.method)[2]

    def names(self, message: Any) -> None:
        """Note whom a request message names, unless one before has."""
        self.agent_id = self.agent_id or getattr(message, "agent_id", "")
        self.session_name = self.session_name or getattr(message, "session_name", "")

    def seconds(self) -> float:
        """Time since the call began."""
        return time.monotonic() - self.started


@lru_cache(maxsize=256)
def _parts(method: str) -> tuple[str, str, bool]:
    """Service, name, and whether the service is one of the infrastructure."""
    service, _, name = method.strip("/").rpartition("/")
    return service, name, service.startswith(_QUIET)


current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the running task answers."""
