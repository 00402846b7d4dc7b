"""How a save reaches the server: in a frame of the stream where that works, else by a call of its own."""

import asyncio
from typing import TYPE_CHECKING

from agent_sessions.connection import Connection
from agent_sessions.stream import SaveStream, StreamRefused
from agent_sessions.v1 import session_service_pb2 as messages

if TYPE_CHECKING:
    import grpc

_METHOD = "/agent_sessions.v1.SessionService/SaveSession"


class Saver:
    """Sends encoded SaveSessionRequests.

    Arguments:
        connection: to the server.
        stream: False: every save is a call of its own.
    """

    def __init__(self, connection: Connection, *, stream: bool) -> None:
        self._connection = connection
        self._stream = SaveStream(connection.metadata) if stream else None
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, messages.SaveSessionResponse] | None = None

    async def save(self, data: bytes, request_id: str, timeout: float | None) -> messages.SaveSessionResponse:
        """Send the same bytes until they are answered; raises as `Connection.call` does."""

        async def attempt(left: float) -> messages.SaveSessionResponse:
            stream, clock = self._stream, asyncio.get_running_loop().time
            started = clock()
            if stream is None or not stream.takes(len(data), request_id):
                return await self._alone(data, left)
            try:
                return await stream.save(self._connection.channel, data, request_id, left)
            except StreamRefused as refused:
                # Not a retry: the server may not even have seen the save, and the request_id makes it safe.
                answer = await self._alone(data, max(0.0, left - (clock() - started)))
                stream.unary_worked(refused)
                return answer

        return await self._connection.with_retries(attempt, timeout)

    async def close(self) -> None:
        """End the stream after its last answer. May be called twice."""
        if self._stream is not None:
            await self._stream.close()

    async def _alone(self, data: bytes, left: float) -> messages.SaveSessionResponse:
        if self._unary is None:
            self._unary = self._connection.channel.unary_unary(
                _METHOD, response_deserializer=messages.SaveSessionResponse.FromString
            )
        return await self._connection.attempt(self._unary, data, left)
