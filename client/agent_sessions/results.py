"""What calls give back, beside the protobuf Session and Revision themselves."""

from dataclasses import dataclass, field

from agent_sessions.state import State, StateCodec
from agent_sessions.v1.session_pb2 import AgentState, Revision, Session


@dataclass(frozen=True, init=False)
class SavedRevision:
    """What a save stored."""

    session: Session
    """The session as it is now."""
    revision: Revision
    """The revision that the save made."""
    replayed: bool
    """True if an earlier attempt with the same request_id had made it."""

    def __init__(self, session: Session, revision: Revision, replayed: bool) -> None:
        # One for every save; as a frozen dataclass does it, by object.__setattr__, it takes three times as long.
        self.__dict__.update(session=session, revision=revision, replayed=replayed)


@dataclass(frozen=True)
class StoredRevision:
    """A revision that was read."""

    session: Session
    """The session as it is now."""
    revision: Revision
    """Its message_count counts all messages, also when only the newest were asked for."""
    agent_state: AgentState | None
    """The state as it was saved; None when only the description was asked for."""
    _codec: StateCodec = field(repr=False, compare=False)

    def decode(self) -> State:
        """Return the state as Python objects.

        Raises MalformedPayload or NotRegistered, and ValueError when there is no state.
        """
        if self.agent_state is None:
            raise ValueError("this revision was read without its state")
        return self._codec.decode(self.agent_state)


@dataclass(frozen=True)
class RestoredRevision(StoredRevision):
    """A revision that was restored; it always has its state."""

    agent_state: AgentState
