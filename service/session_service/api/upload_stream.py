"""UploadSession: what comes over the stream, checked message by message."""

from collections.abc import AsyncGenerator, AsyncIterator

from agent_sessions.v1.session_service_pb2 import SaveSessionRequest, UploadSessionRequest

from session_service.api import states
from session_service.api.transfers import Transfers
from session_service.sessions import fragments
from session_service.sessions.errors import InvalidField, StateTooLarge
from session_service.sessions.model import Content, Save


class UploadStream:
    """One upload's stream: a header, then batches."""

    def __init__(self, requests: AsyncIterator[UploadSessionRequest], transfers: Transfers, max_messages: int) -> None:
        self._requests = requests
        self._transfers = transfers
        self._max_messages = max_messages
        self._first: list[bytes] = []
        self._count = 0
        self._bytes = 0

    async def header(self) -> SaveSessionRequest:
        """The first message.

        Raises:
            InvalidField: it is not a header, or has no snapshot.
            TransferStalled: it did not come.
        """
        request = await self._next()
        if request is None or not request.HasField("header"):
            raise InvalidField("header", "is required in the first message")
        if request.header.HasField("delta"):
            raise InvalidField("header.delta", "cannot be uploaded: send a snapshot; what is stored is what is new")
        return request.header

    def begin(self, save: Save) -> Save:
        """The save without the messages that came with the header: they are the first batch."""
        content = save.content
        if not isinstance(content, Content):
            raise TypeError("header() lets no delta pass")
        self._first = list(content.messages)
        self._bytes = len(content.small) + len(content.kept) + sum(map(len, content.values.values()))
        return save._replace(content=content._replace(messages=()))

    async def batches(self) -> AsyncGenerator[list[bytes], None]:
        """The encoded messages, those of the header first.

        Raises:
            InvalidField: a rule is broken.
            StateTooLarge: there are too many bytes.
            TransferStalled: the caller pauses for too long.
        """
        taken, self._first = [self._first], []
        yield self._counted(taken.pop())
        while (request := await self._next()) is not None:
            if not request.HasField("batch"):
                raise InvalidField("batch", "is required in every message but the first")
            taken = [states.take_batch(request.batch, self._count, self._max_messages)]
            del request  # nothing is kept here of what was taken
            yield self._counted(taken.pop())

    def _counted(self, messages: list[bytes]) -> list[bytes]:
        self._count += len(messages)
        self._bytes += sum(map(fragments.framed_size, messages))
        limit = self._transfers.limits.state_bytes
        if self._bytes > limit:
            raise StateTooLarge(
                f"the state has at least {self._bytes} bytes; at most {limit} are allowed",
                {"limit": str(limit), "actual": str(self._bytes)},
            )
        return messages

    async def _next(self) -> UploadSessionRequest | None:
        return await self._transfers.caller(anext(self._requests, None))
