"""What a service in between costs at least: a gRPC server that hands the floor's statement on, and nothing else.

No checks, digests, compression, revisions, events or request ids. Over the stream, a frame is one statement.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import grpc
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server
from session_service import event_loop

from benchmarks.stores.base import CONNECTIONS
from benchmarks.stores.floor import FIRST, NEXT

NEXT_MANY = """
WITH item AS (SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[]) AS i (session_id, position, data)),
message AS (INSERT INTO messages (session_id, position, data) SELECT session_id, position, data FROM item)
UPDATE sessions SET message_count = item.position + 1, update_time = now()
FROM item WHERE sessions.session_id = item.session_id
"""


class Relay(SessionServiceServicer):
    """Saves one message per request: session_name is the session, base_revision the message's position."""

    def __init__(self, dsn: str, pool: asyncpg.Pool) -> None:
        self._dsn = dsn
        self._pool = pool
        self._ids: dict[str, int] = {}

    async def SaveSession(self, request: pb.SaveSessionRequest, context: Any) -> pb.SaveSessionResponse:
        """Insert one message."""
        if request.delta.base_revision:
            await self._pool.execute(NEXT, *self._row(request))
        else:
            await self._first(request)
        return pb.SaveSessionResponse()

    async def SaveSessions(
        self, request_iterator: AsyncIterator[pb.SaveSessionsRequest], context: Any
    ) -> AsyncIterator[pb.SaveSessionsResponse]:
        """Insert the messages of each frame together, over a connection of the stream's own."""
        connection = await asyncpg.connect(self._dsn)
        try:
            async for frame in request_iterator:
                requests = [framed.request for framed in frame.saves]
                await self._save(connection, requests)
                yield pb.SaveSessionsResponse(
                    results=[pb.SaveResult(request_id=request.request_id) for request in requests]
                )
        finally:
            connection.terminate()

    async def _save(self, connection: Any, requests: Sequence[pb.SaveSessionRequest]) -> None:
        for request in requests:
            if not request.delta.base_revision:
                await self._first(request)
        rows = [self._row(request) for request in requests if request.delta.base_revision]
        if rows:
            await connection.execute(NEXT_MANY, *zip(*rows, strict=True))

    async def _first(self, request: pb.SaveSessionRequest) -> None:
        message = request.delta.appended_messages[0]
        self._ids[request.session_name] = await self._pool.fetchval(
            FIRST, request.session_name, 0, message.payload.data
        )

    def _row(self, request: pb.SaveSessionRequest) -> tuple[int, int, bytes]:
        delta = request.delta
        return self._ids[request.session_name], delta.base_revision, delta.appended_messages[0].payload.data


async def _serve(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        server = grpc.aio.server()
        add_SessionServiceServicer_to_server(Relay(dsn, pool), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps({"event": "listening", "address": f"127.0.0.1:{port}"}), file=sys.stderr, flush=True)
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await stopping.wait()
        await server.stop(None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop.factory("auto")) as runner:
        runner.run(_serve(sys.argv[1]))
