"""Puts layers around every kind of handler.

A layer is an async context manager around a whole call: from before its request
is read until after its last answer was handed over. All four kinds of handlers
(unary or stream, generators or coroutines) are turned into one shape, in which
requests and answers are bytes outside and messages inside.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from inspect import isasyncgen
from typing import Any, TypeAlias, cast

import grpc

from session_service.api.errors import MethodNotFound
from session_service.api.interceptors.call import Call, current_call
from session_service.api.interceptors.messages import MessageCodec

# Generic in the stubs only, so as text.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Layer: TypeAlias = "Callable[[Call, Context], AbstractAsyncContextManager[None]]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_KINDS = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


class Pipeline(grpc.aio.ServerInterceptor):
    """The one interceptor of the server: its layers, the first outermost."""

    def __init__(self, layers: Sequence[Layer], max_request_bytes: int) -> None:
        self._layers = layers
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
            async with AsyncExitStack() as stack:
                for layer in self._layers:
                    await stack.enter_async_context(layer(call, context))
                return await _answer(handler, codec, call, raw, context)

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
            await context.write(codec.encode(call, answer))
    return None


async def _decoded_stream(codec: MessageCodec, call: Call, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in raw:
        yield codec.decode(call, data)


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
        await self._context.write(self._codec.encode(self._call, message))

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
