"""The channel to the service, and one call over it: deadline, retries, typed errors."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from agent_sessions.errors import ClientClosed
from agent_sessions.retry import RetryPolicy, with_retries
from agent_sessions.status import error_from_rpc
from agent_sessions.v1 import session_service_pb2_grpc as rpc

_Response = TypeVar("_Response")

Method = Callable[..., Awaitable[_Response]]
"""A call of gRPC's, or what is called like one: takes a request, or an iterator of many, timeout and metadata."""

ChannelOptions = Sequence[tuple[str, Any]]
Metadata = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]

DEFAULT_CHANNEL_OPTIONS: ChannelOptions = (
    # Retries are made here, where the reason of an error is known.
    ("grpc.enable_retries", 0),
    # A state can be larger than the request that saved it, by labels and times, or
    # was saved in pieces; what could be saved must come back.
    ("grpc.max_receive_message_length", -1),
    # What is too large is answered by the server, with its limit.
    ("grpc.max_send_message_length", -1),
    # A connection that died without a word is noticed while a call waits on it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The channel's own pause between connection attempts (default: up to two
    # minutes) would make retries fail long after the server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""Options given by the caller come after these and win."""


class Connection:
    """A channel, opened at the first call so that it belongs to the event loop that uses it."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        retry: RetryPolicy,
        metadata: Metadata = (),
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.aio.Channel | None = None,
        channel_options: ChannelOptions = (),
    ) -> None:
        self._target = target
        self.timeout = timeout
        """The default, in seconds."""
        self.retry = retry
        """How failed attempts are repeated."""
        self.metadata = tuple(metadata.items() if isinstance(metadata, Mapping) else metadata)
        """Sent along with every call."""
        self._credentials = credentials
        self._options = (*DEFAULT_CHANNEL_OPTIONS, *channel_options)
        self._channel = channel
        self._owns_channel = channel is None
        self._stub: rpc.SessionServiceAsyncStub | None = None
        self._closed = False

    @property
    def stub(self) -> "rpc.SessionServiceAsyncStub":
        """The generated stub. Raises ClientClosed after close."""
        channel = self.channel
        if self._stub is None:
            self._stub = rpc.SessionServiceStub(channel)
        return self._stub

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, opened now if it was not. Raises ClientClosed after close."""
        if self._closed:
            raise ClientClosed("this client was closed")
        if self._channel is None:
            self._channel = self._open()
        return self._channel

    async def call(
        self,
        method: Method[_Response],
        request: object,
        timeout: float | None,
    ) -> _Response:
        """Send the same request until it is answered; see `with_retries` for what is raised.

        `timeout` bounds all attempts together, in seconds; None means the
        default, math.inf no bound.
        """
        return await with_retries(
            lambda left: self.attempt(method, request, left),
            timeout=self.timeout if timeout is None else timeout,
            policy=self.retry,
        )

    async def attempt(self, method: Method[_Response], request: object, left: float) -> _Response:
        """Send a request once; it may take `left` seconds (inf: no bound)."""
        if self._closed:
            raise ClientClosed("this client was closed during the call")
        try:
            return await method(request, timeout=None if math.isinf(left) else left, metadata=self.metadata)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from failure
        except asyncio.CancelledError:
            self.tell_close_from_cancel()
            raise

    def tell_close_from_cancel(self) -> None:
        """Raise ClientClosed if it was the closing channel, not the caller, that cancelled the call."""
        task = asyncio.current_task()
        if self._closed and task is not None and not task.cancelling():
            raise ClientClosed("this client was closed during the call") from None

    async def close(self) -> None:
        """End calls in flight and close the channel, if it was opened here. May be called twice."""
        self._closed = True
        if self._channel is not None and self._owns_channel:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=self._options)
        return grpc.aio.secure_channel(self._target, self._credentials, options=self._options)
