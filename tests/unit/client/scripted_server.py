"""A gRPC server in the test's own event loop whose answers a test writes down beforehand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.v1 import session_service_pb2_grpc as rpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import (
    error_details_pb2,
    status_pb2,
)

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Message | list[Any] | Exception | Callable[[Any, Context], Awaitable[Message]]


class Failure(Exception):
    """A status that the server ends a call with, with its details."""

    def __init__(self, code: grpc.StatusCode, message: str = "no", *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if not self.details:
            return ()
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = Packed()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)

    async def end(self, context: Context) -> NoReturn:
        context.set_trailing_metadata(self.trailing_metadata())
        await context.abort(self.code, self.message)

    def save_error(self) -> messages.SaveError:
        error = messages.SaveError(code=self.code.value[0], message=self.message)
        for detail in self.details:
            if isinstance(detail, error_details_pb2.ErrorInfo):
                error.reason = detail.reason
                error.metadata.update(detail.metadata)
            if isinstance(detail, error_details_pb2.RetryInfo):
                error.metadata["retry_delay_ms"] = str(detail.retry_delay.ToMilliseconds())
        return error


def info(reason: str, domain: str = "agent_sessions", **metadata: str) -> Message:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)  # type: ignore[no-any-return]  # untyped


def expired(oldest: str) -> Failure:
    """Return how a watch ends whose token is too old; `oldest` is base64."""
    return Failure(grpc.StatusCode.OUT_OF_RANGE, "old", info("CURSOR_EXPIRED", oldest_resume_token=oldest))


def retry_after(seconds: float) -> Message:
    delay = Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)  # type: ignore[no-any-return]  # untyped


@dataclass
class WatchCall:
    """A WatchSessions call, answered step by step."""

    request: messages.WatchSessionsRequest
    metadata: dict[str, Any]
    outgoing: "asyncio.Queue[Message | Failure | None]" = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the call has ended, by either side."""

    def created(self, token: str | None = None) -> None:
        token = token or "t0"
        self.outgoing.put_nowait(messages.WatchSessionsResponse(created={}, resume_token=token.encode()))

    def bookmark(self, token: str) -> None:
        self.outgoing.put_nowait(messages.WatchSessionsResponse(bookmark={}, resume_token=token.encode()))

    def event(self, token: str, **fields: Any) -> None:
        """Send an event; where no event_id is given, the token is it."""
        event = pb.SessionEvent(**{"event_id": token, "type": pb.EVENT_TYPE_RESTORED, **fields})
        self.outgoing.put_nowait(messages.WatchSessionsResponse(event=event, resume_token=token.encode()))

    def end(self, failure: "Failure | None" = None) -> None:
        self.outgoing.put_nowait(failure)


@dataclass
class ScriptedServer(rpc.SessionServiceServicer):
    """Answers calls in order from `script`; the last answer repeats."""

    script: list[Answer] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    time_remaining: list[float | None] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test: what hangs is answered."""
    is_ready: bool = True
    """Whether an upload is told to begin; else it is refused as the script says."""
    reads_uploads: bool = True
    port: int = 0
    unary: int = 0
    """Calls that were not in a stream."""
    streams: int = 0
    frames: list[Any] = field(default_factory=list)
    stream_metadata: list[dict[str, Any]] = field(default_factory=list)
    half_closed: asyncio.Event = field(default_factory=asyncio.Event)
    watches: "asyncio.Queue[WatchCall]" = field(default_factory=asyncio.Queue)
    """WatchSessions calls that came and were not taken by `next_watch`."""
    on_watch: "Callable[[WatchCall], Awaitable[None]] | None" = None
    """Run beside each WatchSessions call, for a test in another thread."""

    def __post_init__(self) -> None:
        self.stream_script: list[Callable[[AsyncIterator[Any], Context], AsyncIterator[Message]]] = [self.answer_frames]
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpc.add_SessionServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def answer(self, request: Any, context: Context) -> Any:
        self.unary += 1
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.time_remaining.append(context.time_remaining())
        self.arrived.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            if isinstance(answer, Failure):
                raise answer
            return await answer(request, context) if callable(answer) else answer
        except Failure as failure:
            await failure.end(context)

    async def hang(self, request: Any, context: Context) -> Message:
        """Answer by not answering; `cancelled` is set when the caller goes away."""
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return messages.SaveSessionResponse()

    async def save_sessions(self, frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        """Behave as the stream's script says; the last behaviour repeats."""
        self.streams += 1
        behave = self.stream_script.pop(0) if len(self.stream_script) > 1 else self.stream_script[0]
        async for answer in behave(frames, context):
            yield answer

    async def answer_frames(self, frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        """Do what a server does; the script says how each save ends."""
        self.stream_metadata.append(dict(context.invocation_metadata() or ()))
        async for frame in frames:
            self.frames.append(frame)
            for framed in frame.saves:
                yield messages.SaveSessionsResponse(results=[await self._result(framed, context)])
        self.half_closed.set()

    async def _result(self, framed: messages.FramedSave, context: Context) -> messages.SaveResult:
        request = framed.request
        self.requests.append(request)
        timeout = framed.timeout
        self.time_remaining.append(timeout.seconds + timeout.nanos / 1e9 if framed.HasField("timeout") else None)
        self.arrived.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            if isinstance(answer, Failure):
                raise answer
            response: Any = await answer(request, context) if callable(answer) else answer
            return messages.SaveResult(request_id=request.request_id, response=response)
        except Failure as failure:
            return messages.SaveResult(request_id=request.request_id, error=failure.save_error())

    async def upload_session(self, requests: AsyncIterator[Any], context: Context) -> Any:
        """Answer like a call whose request is the list of all that came."""
        if not self.is_ready:
            failure = self.script[0]
            assert isinstance(failure, Failure)
            await failure.end(context)
        await context.send_initial_metadata((("upload-ready", "1"),))
        received = [request async for request in requests] if self.reads_uploads else []
        return await self.answer(received, context)

    async def download_session(self, request: Any, context: Context) -> AsyncIterator[Message]:
        """Send the messages of the script's next answer: a list, or an iterator."""
        parts = await self.answer(request, context)
        if isinstance(parts, list):
            for part in parts:
                yield part
        else:
            async for part in parts:
                yield part

    async def watch_sessions(self, request: Any, context: Context) -> AsyncIterator[Message]:
        """Send what the test sends by the call that `next_watch` gave it."""
        call = WatchCall(request, dict(context.invocation_metadata() or ()))
        self.watches.put_nowait(call)
        beside = asyncio.ensure_future(self.on_watch(call)) if self.on_watch else None
        try:
            while isinstance(sent := await call.outgoing.get(), Message):
                yield sent
            if sent is not None:
                await sent.end(context)
        finally:
            call.gone.set()
            if beside is not None:
                await beside

    async def next_watch(self) -> "WatchCall":
        """Wait for a WatchSessions call."""
        async with asyncio.timeout(5):
            return await self.watches.get()

    UploadSession = upload_session  # type: ignore[assignment]  # the stub takes any iterator
    DownloadSession = download_session  # type: ignore[assignment]  # the stub leaves its answers' type open
    SaveSessions = save_sessions  # type: ignore[assignment]  # the stub leaves its answers' type open
    WatchSessions = watch_sessions  # type: ignore[assignment]  # the stub leaves its answers' type open
    SaveSession = RestoreSession = GetSession = GetRevision = answer
    ListSessions = ListRevisions = DeleteSession = UndeleteSession = answer


def saved(revision: int = 1) -> messages.SaveSessionResponse:
    response = messages.SaveSessionResponse(replayed=False)
    response.session.session_name = "s"
    response.revision.revision = revision
    return response
