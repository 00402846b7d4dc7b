"""States larger than one message: sent and fetched piece by piece."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from agent_sessions.connection import Connection
from agent_sessions.errors import MessageTooLarge, Unavailable
from agent_sessions.retry import with_retries
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.wire import bytes_tag, varint

LARGEST_REQUEST = 4 * 1024 * 1024
"""Bytes. What is larger is uploaded; if a server takes less than this, it says so, and then that is uploaded, too."""
MOST_MESSAGES = 20_000
"""Messages in one save, by the server's default. More are uploaded."""
BATCH_BYTES = 512 * 1024
"""A batch holds at most so many bytes of messages, or one larger message."""
BATCH_MESSAGES = 10_000

_UPLOAD = "/agent_sessions.v1.SessionService/UploadSession"
_READY = "upload-ready"
"""In the initial metadata."""
_HEADER = bytes_tag(messages.UploadSessionRequest.HEADER_FIELD_NUMBER)
_BATCH = bytes_tag(messages.UploadSessionRequest.BATCH_FIELD_NUMBER)
_MESSAGE = bytes_tag(messages.StateBatch.MESSAGE_HISTORY_FIELD_NUMBER)
_FRAMING = 6
"""More than one message's framing takes."""


def is_large(size: int, message_count: int) -> bool:
    """Tell whether a save of so many bytes and messages is more than a request takes."""
    return size > LARGEST_REQUEST or message_count > MOST_MESSAGES


@dataclass
class Downloaded:
    """What a restore answers, put together."""

    session: pb.Session = field(default_factory=pb.Session)
    revision: pb.Revision = field(default_factory=pb.Revision)
    state: pb.AgentState = field(default_factory=pb.AgentState)

    def add(self, part: messages.DownloadSessionResponse) -> None:
        """Take the next message of the stream in."""
        if part.HasField("header"):
            self.session, self.revision, self.state = part.header.session, part.header.revision, part.header.state
        else:
            # A batch has the state's field numbers.
            self.state.MergeFromString(part.batch.SerializeToString())


class LargeStates:
    """Uploads and downloads over one connection. Both raise as `Connection.call` does."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._batch_bytes = BATCH_BYTES

    async def upload(
        self, header: bytes, history: Sequence[bytes], timeout: float | None
    ) -> messages.UploadSessionResponse:
        """Save a state; a retry sends all of it again.

        Arguments:
            header: an encoded SaveSessionRequest with a snapshot without messages.
            history: the encoded messages.
            timeout: seconds for all attempts together; None: the client's default.
        """
        seconds = self._connection.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        while True:
            used = self._batch_bytes
            try:
                return await with_retries(
                    lambda left: self._connection.attempt(self._send, self._requests(header, history), left),
                    timeout=max(0.0, deadline - time.monotonic()),
                    policy=self._connection.retry,
                )
            except MessageTooLarge as error:
                smaller = (error.limit or 0) // 2
                if not 0 < smaller < used:  # not as it is by now: another upload may have met the limit, too
                    raise
                self._batch_bytes = min(self._batch_bytes, smaller)  # this server's limit is lower than usual

    async def download(self, request: messages.DownloadSessionRequest, timeout: float | None) -> Downloaded:
        """Fetch a state; a retry fetches all of it again."""

        async def fetch(request: messages.DownloadSessionRequest, **options: Any) -> Downloaded:
            downloaded = Downloaded()
            async for part in self._connection.stub.DownloadSession(request, **options):
                downloaded.add(part)
            return downloaded

        return await self._connection.call(fetch, request, timeout)

    async def _send(self, requests: Iterator[bytes], **options: Any) -> messages.UploadSessionResponse:
        """Send the requests over one stream."""
        call: Any = self._connection.channel.stream_unary(
            _UPLOAD, response_deserializer=messages.UploadSessionResponse.FromString
        )(**options)
        try:
            # A refusal that came while a request is written would be taken for a broken connection. So the server
            # says first whether it has room; it tells other refusals after the last request.
            if _READY in await call.initial_metadata():
                for request in requests:
                    await call.write(request)
                await call.done_writing()
        except asyncio.InvalidStateError:
            pass  # the call has ended, and tells why
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.INTERNAL:
                raise
            raise Unavailable("the connection broke while the state was sent") from failure
        except BaseException:
            call.cancel()
            raise
        answer: messages.UploadSessionResponse = await call
        return answer

    def _requests(self, header: bytes, history: Sequence[bytes]) -> Iterator[bytes]:
        yield b"".join((_HEADER, varint(len(header)), header))
        batch: list[bytes] = []
        size = count = 0
        for message in history:
            if count and (size + len(message) + _FRAMING > self._batch_bytes or count == BATCH_MESSAGES):
                yield _batch(batch)
                batch, size, count = [], 0, 0
            batch += (_MESSAGE, varint(len(message)), message)
            size += len(message) + _FRAMING
            count += 1
        if batch:
            yield _batch(batch)


def _batch(pieces: list[bytes]) -> bytes:
    return b"".join((_BATCH, varint(sum(map(len, pieces))), *pieces))
