"""The messages of a watch: one stream after another, each going on where the one before broke."""

import asyncio
from typing import Any

import grpc
from grpc import StatusCode

from agent_sessions.connection import Connection
from agent_sessions.errors import SessionServiceError, Unavailable
from agent_sessions.retry import is_retryable
from agent_sessions.status import error_from_rpc
from agent_sessions.v1 import session_service_pb2 as messages

_BROKEN = (StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED)
"""How something between us and the server may end a stream that lasts."""


class WatchStream:
    """Reads a WatchSessions stream, and opens another one when it breaks.

    Arguments:
        connection: to the server.
        request: what to watch; its resume_token moves on with what is read.
        silence_timeout: seconds without any message after which a stream is given up.
    """

    def __init__(
        self, connection: Connection, request: messages.WatchSessionsRequest, *, silence_timeout: float
    ) -> None:
        self.last_error: SessionServiceError | None = None
        """Why there is no stream; None while there is one."""
        self._connection = connection
        self._request = request
        self._silence_timeout = silence_timeout
        self._call: Any = None  # a grpc.aio.UnaryStreamCall, or an interceptor's
        self._attempts = 0
        """Streams in a row that brought no news."""

    async def read(self) -> messages.WatchSessionsResponse:
        """Return the next message, however long it takes and however often the stream breaks.

        Raises what will not pass by itself, ClientClosed, and what the client's RetryPolicy does
        not retry any more. Cancelled, it ends the stream; the next call goes on where it was.
        """
        while True:
            try:
                message = await self._read_once()
            except SessionServiceError as error:
                self.close()
                await self._wait_after(error)
                continue
            except BaseException:
                self.close()
                raise
            self.last_error = None
            if not message.HasField("created"):
                # A server that ends each stream as soon as it has begun is not asked without a pause.
                self._attempts = 0
            if message.resume_token:
                self._request.resume_token = message.resume_token
            return message

    def close(self) -> None:
        """End the stream, if there is one."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def __del__(self) -> None:
        """End the stream of a watch that nobody closed: gRPC would keep it as long as the channel."""
        self.close()

    async def _read_once(self) -> messages.WatchSessionsResponse:
        connection = self._connection
        if self._call is None:
            self._call = connection.stub.WatchSessions(self._request, metadata=connection.metadata)
        try:
            async with asyncio.timeout(self._silence_timeout):
                message = await self._call.read()
        except TimeoutError:
            raise Unavailable(f"nothing came for {self._silence_timeout:g} s, not even a bookmark") from None
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from failure
        except asyncio.CancelledError:
            connection.tell_close_from_cancel()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # A channel that somebody else closed, perhaps: opening another stream tells.
            raise Unavailable("the stream was cancelled") from None
        if message is grpc.aio.EOF:
            raise Unavailable("the server ended the stream")
        response: messages.WatchSessionsResponse = message
        return response

    async def _wait_after(self, error: SessionServiceError) -> None:
        """Wait until the next stream is due. Raises the error if there is to be none."""
        self._attempts += 1
        self.last_error = error
        retry = self._connection.retry
        if not _passes(error) or not retry.allows(self._attempts):
            raise error
        await asyncio.sleep((error.retry_delay or 0.0) + retry.backoff(self._attempts))


def _passes(error: SessionServiceError) -> bool:
    """Tell whether another stream may fare better: also after what no server said (a proxy's time was up, say)."""
    return is_retryable(error) or (not error.reason and error.code in _BROKEN)
