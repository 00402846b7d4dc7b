"""What these tests save, and how they look at what comes back."""

from agent_sessions import StoredRevision

AGENT = "agent"


def texts_of(stored: StoredRevision) -> list[str]:
    """Return the texts that `conversation` was given."""
    assert stored.agent_state is not None
    return [message.text for message in stored.agent_state.message_history]
