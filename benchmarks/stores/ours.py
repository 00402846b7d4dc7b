"""This service, through its client library, against a server process of its own."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from agent_sessions import SessionClient, State
from agent_sessions.v1 import session_pb2 as pb
from session_service.build_info import version
from session_service.postgres.migrate import migrate

from benchmarks.corpus import Conversation, Message
from benchmarks.stores.base import CONNECTIONS, Access, Description, Unavailable, package_versions

ROLE = "session_service_runtime"
KEEPS = "every save as a revision, an event per save, request ids"


class OurSnapshotStore:
    """The whole state at every save; the server stores what is new of it."""

    def __init__(self) -> None:
        self._encoded: WeakKeyDictionary[Message, pb.Message] = WeakKeyDictionary()

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("whole state", "client.save with the whole state")

    def _description(self, title: str, setup: str) -> Description:
        return Description(
            title=f"this service, {title}",
            version=f"{version()}, " + package_versions("grpcio", "protobuf"),
            setup=f"a server process with a pool of {CONNECTIONS}, gRPC on loopback; {setup}",
            keeps=KEEPS,
        )

    async def prepare(self, dsn: str) -> None:
        """Make the schema."""
        await migrate(dsn, role=ROLE)

    async def open(self, access: Access) -> None:
        """Make the client."""
        self.client = SessionClient(access.target, **self._client_options())

    def _client_options(self) -> dict[str, Any]:
        return {}

    async def save(self, conversation: Conversation, index: int) -> None:
        """Save everything so far."""
        messages = [self._message(message) for message in conversation.messages[: index + 1]]
        await self.client.save(conversation.agent_id, conversation.session_name, State(messages=messages))

    def _message(self, message: Message) -> pb.Message:
        """Return the message as protobuf, made once."""
        made = self._encoded.get(message)
        if made is None:
            payload = pb.Payload(content_type="application/json", data=message.data)
            made = self._encoded[message] = pb.Message(payload=payload)
        return made

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Restore the newest revision."""
        restored = await self.client.restore(conversation.agent_id, conversation.session_name)
        return restored.decode().messages

    async def revision(self, conversation: Conversation, number: int) -> Sequence[Any]:
        """Read one revision, without recording that."""
        found = await self.client.get_revision(conversation.agent_id, conversation.session_name, revision=number)
        return found.decode().messages

    async def close(self) -> None:
        """Close the client."""
        await self.client.close()


class OurStore(OurSnapshotStore):
    """Only the new message travels, with others' in one frame of a stream."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(SessionClient, "session"):
            raise Unavailable("this version's client library has no session objects")
        self._sessions: dict[tuple[str, str], Any] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("new messages", "session.append, over the client's stream")

    async def save(self, conversation: Conversation, index: int) -> None:
        """Append the new message."""
        name = (conversation.agent_id, conversation.session_name)
        if name not in self._sessions:
            client: Any = self.client
            self._sessions[name] = client.session(*name)
        await self._sessions[name].append([self._message(conversation.messages[index])])


class OurUnaryStore(OurStore):
    """Only the new message travels, in a call of its own."""

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("new messages, unary", "session.append, a call per save (stream=False)")

    def _client_options(self) -> dict[str, Any]:
        return {"stream": False}


class OurPackingStore(OurStore):
    """The same beside a server that packs what was just saved."""

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("new messages, packing", "as ours, and the server packs with --pack-after 0")
