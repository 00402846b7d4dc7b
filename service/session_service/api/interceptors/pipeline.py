"""Puts layers around every kind of handler.

A layer stands around a whole call: from before its request is read until after
its last answer was handed over. All four kinds of handlers (unary or stream,
generators or coroutines) are turned into one shape, in which requests and answers
are bytes outside and messages inside.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from inspect import isasyncgen
from typing import Any, Protocol, TypeAlias, cast

import grpc

from session_service.api.errors import MethodNotFound
from session_service.api.interceptors import failures
from session_service.api.interceptors.call import Call, Context, current_call
from session_service.api.interceptors.messages import MessageCodec
from session_service.sessions.errors import SessionServiceError, TransferStalled

Check: TypeAlias = Callable[[Call, Context], None]
"""Looks at a call before it is answered; what it raises is told to the caller."""
# Generic in the stubs only, so as text.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_DISCARDING = 10.0
"""Seconds that requests are read for which nobody needs any more."""
_KINDS = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


class Layer(Protocol):
    """Something around every call. Not a context manager: seven of them cost more than all else about a small call."""

    def begin(self, call: Call, context: Context) -> None:
        """Before the call. Must not raise."""

    def end(self, call: Call) -> None:
        """After the call, however it ended; the call tells how. Must not raise."""


class Pipeline(grpc.aio.ServerInterceptor):
    """The one interceptor of the server: its layers, the first outermost, and within them the checks.

    Errors become statuses within the layers, so that these know how a call ended, and around the
    checks, so that a refusal is told in the same way as an error.
    """

    def __init__(self, layers: Sequence[Layer], checks: Sequence[Check], max_request_bytes: int) -> None:
        self._layers = layers
        self._outwards = tuple(reversed(layers))
        self._checks = checks
        self._max_request_bytes = max_request_bytes
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the method's handler with the layers around it."""
        method = _text(handler_call_details.method)
        if (wrapped := self._wrapped.get(method)) is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            # Not kept: names that callers invent have no end.
            return self._wrap(method, _unknown_method(method), known=False)
        return self._wrapped.setdefault(method, self._wrap(method, handler, known=True))

    def _wrap(self, method: str, handler: _Handler, *, known: bool) -> _Handler:
        kind = _KINDS[handler.request_streaming, handler.response_streaming]
        codec = MessageCodec(handler.request_deserializer, handler.response_serializer, self._max_request_bytes)

        async def behaviour(raw: Any, context: Context) -> bytes | None:
            call = Call(method, kind, known=known, peer=context.peer())
            current_call.set(call)
            for layer in self._layers:
                layer.begin(call, context)
            try:
                for check in self._checks:
                    check(call, context)
                answer = await _answer(handler, codec, call, raw, context)
                failures.note_success(call, context)
                return answer
            except BaseException as error:
                if call.is_read_to_its_end and _is_refusal(error):
                    await _read_to_its_end(raw)
                await failures.tell(call, context, error)
                return None
            finally:
                for layer in self._outwards:
                    layer.end(call)

        make = _HANDLER_MAKERS[kind]
        return make(behaviour)


async def _answer(handler: _Handler, codec: MessageCodec, call: Call, raw: Any, context: Context) -> bytes | None:
    """Run the handler: return its one answer, or send its many."""
    request = _decoded_stream(codec, call, raw) if handler.request_streaming else codec.decode(call, raw)
    inner = cast("Context", _MessageContext(context, codec, call))
    if not handler.response_streaming:
        return codec.encode(call, await _behaviour_of(handler)(request, inner))
    answers = _behaviour_of(handler)(request, inner)
    if not isasyncgen(answers):
        await answers  # this style writes to the context
        return None
    async with aclosing(answers):
        async for answer in answers:
            await _write(context, codec.encode(call, answer))
    return None


async def _write(context: Context, data: bytes) -> None:
    try:
        await context.write(data)
    except Exception as failed:
        raise failures.CallerGone from failed


def _is_refusal(error: BaseException) -> bool:
    """Whether the caller may be sending still, and is to be told why it should not."""
    return isinstance(error, SessionServiceError) and not isinstance(error, TransferStalled)


async def _read_to_its_end(raw: AsyncIterator[bytes]) -> None:
    """Discard what a caller still sends, for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARDING):
            async for _ in raw:
                pass


async def _decoded_stream(codec: MessageCodec, call: Call, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in raw:
        # Of a large upload nothing is kept here: neither while a message is worked on, nor while one is waited for.
        decoded = [codec.decode(call, data)]
        del data
        yield decoded.pop()


class _MessageContext:
    """A context whose read and write take messages, not bytes."""

    def __init__(self, context: Context, codec: MessageCodec, call: Call) -> None:
        self._context = context
        self._codec = codec
        self._call = call

    async def read(self) -> Any:
        data: Any = await self._context.read()
        if data is grpc.aio.EOF:
            return data
        return self._codec.decode(self._call, data)

    async def write(self, message: Any) -> None:
        await _write(self._context, self._codec.encode(self._call, message))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _behaviour_of(handler: _Handler) -> Callable[[Any, Context], Any]:
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return cast("Callable[[Any, Context], Any]", found)


def _unknown_method(method: str) -> _Handler:
    async def refuse(_: Any, __: Context) -> None:
        raise MethodNotFound(f"there is no method {method[:256]}", {"method": method})

    # Streams both ways: it reads nothing, so it can answer a caller of any kind.
    return grpc.stream_stream_rpc_method_handler(refuse)


_HANDLER_MAKERS: "dict[str, Callable[[Any], _Handler]]" = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "client_stream": grpc.stream_unary_rpc_method_handler,
    "server_stream": grpc.unary_stream_rpc_method_handler,
    "bidi_stream": grpc.stream_stream_rpc_method_handler,
}


def _text(method: str | bytes) -> str:
    return method.decode(errors="replace") if isinstance(method, bytes) else method
