"""One conversation: a checkpoint per message, then a restore."""

from collections.abc import Callable

from agent_sessions.cli.failures import CommandFailed, from_error
from agent_sessions.cli.replay.comparison import Mismatch, mismatches
from agent_sessions.cli.replay.corpus import Conversation
from agent_sessions.cli.replay.summary import Totals
from agent_sessions.client import SessionClient
from agent_sessions.errors import AgentSessionsError, DataLoss, RevisionMismatch, SessionDeleted
from agent_sessions.state import State
from agent_sessions.v1.session_pb2 import AgentState


class ConversationReplay:
    """Saves, restores and compares one conversation, and adds what it did to the totals."""

    def __init__(
        self, client: SessionClient, conversation: Conversation, totals: Totals, on_save: Callable[[], None]
    ) -> None:
        self._client = client
        self._conversation = conversation
        self._totals = totals
        self._on_save = on_save

    async def run(self) -> None:
        """Raise CommandFailed, naming the session, for anything but a mismatch."""
        try:
            complete = self._client.codec.encode(State(messages=list(self._conversation.messages)))
            complete.agent_id = self._conversation.agent_id
            await self._save(complete)
            await self._compare(complete)
        except AgentSessionsError as error:
            raise self._failure(error) from error
        self._totals.conversations += 1
        self._totals.messages += len(complete.message_history)
        self._totals.bytes_in += sum(len(message.payload.data) for message in complete.message_history)

    async def _save(self, complete: AgentState) -> None:
        """Save after each message, on the condition that nobody else does."""
        names = (self._conversation.agent_id, self._conversation.session_name)
        session = self._client.session(*names, exclusive=True)
        for base, message in enumerate(complete.message_history):
            saved = await session.append([message])
            self._totals.saves += 1
            self._totals.bytes_sent += _framed_size(message)
            if saved.revision.revision != base + 1:
                self._add(f"save {base + 1} made revision {saved.revision.revision}")
            self._on_save()

    async def _compare(self, complete: AgentState) -> None:
        names = (self._conversation.agent_id, self._conversation.session_name)
        try:
            restored = await self._client.restore(*names)
        except DataLoss as error:
            self._add(f"{error.reason or error.code.name}: {error.message}")
            return
        self._totals.mismatches.extend(mismatches(complete, self._conversation, restored))

    def _add(self, problem: str) -> None:
        self._totals.mismatches.append(Mismatch(self._conversation.agent_id, self._conversation.session_name, problem))

    def _failure(self, error: AgentSessionsError) -> CommandFailed:
        name = f"agents/{self._conversation.agent_id}/sessions/{self._conversation.session_name}"
        if isinstance(error, SessionDeleted) or (isinstance(error, RevisionMismatch) and error.expected_revision == 0):
            name += (
                " exists already, and a replay never mixes with it"
                " (use --unique, --session-suffix or --agent-prefix for other names)"
            )
        return from_error(error, name)


def _framed_size(message: object) -> int:
    return AgentState(message_history=[message]).ByteSize()  # type: ignore[list-item]
