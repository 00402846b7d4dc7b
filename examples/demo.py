"""A session's life, told in the terminal. Ends with 0 only if everything it tells was found to be so.

It runs a server of its own, with its own PostgreSQL, and removes both at the end.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg
from agent_sessions import (
    AuthContext,
    CorruptData,
    InvalidField,
    LoopState,
    RevisionMismatch,
    SessionServiceError,
    State,
    SyncSessionClient,
)
from demo_screen import ClaimFailedError, claim, heading, message, refusal, say
from demo_server import DemoServer

AGENT, SESSION = "travel-agent", "trip-to-lisbon"
BEGINNING = [
    {"role": "user", "content": "I need a hotel in Lisbon, 3 nights from Friday."},
    {"role": "assistant", "content": "Two are free: Alfama (120 €) and Baixa (150 €). Which one?"},
]
CONTINUATION = [
    {"role": "user", "content": "Alfama, please."},
    {"role": "assistant", "content": "Booked. The confirmation is on its way."},
]
_Error = TypeVar("_Error", bound=SessionServiceError)


def main() -> int:
    """Run the demo and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begin = time.monotonic()
    try:
        with DemoServer() as server:
            tell(server)
    except ClaimFailedError as failed:
        print(f"\nThis does not hold: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the server is stopped and its data removed.", file=sys.stderr)
        return 130
    claim("server stopped, PostgreSQL stopped, data removed", not server.data_dir.exists())
    print(f"\nAll of this was checked, in {time.monotonic() - begin:.0f} s.")
    return 0


def tell(server: DemoServer) -> None:
    """Tell the whole story."""
    heading("A server with a real PostgreSQL of its own")
    server.start()
    say(f"process {server.pid} answers at {server.address}; data in {server.data_dir}")
    with SyncSessionClient(server.address) as client:
        state = converse_and_save(client)
        state = go_on(client, state)
        restore(client, state)
        refusals(client)
        state = damage_and_heal(client, server, state)
    kill_and_start_again(server, state)


def converse_and_save(client: SyncSessionClient) -> State:
    """Save the beginning of a conversation."""
    heading("A conversation, saved")
    state = conversation(BEGINNING)
    show(BEGINNING)
    saved = client.save(AGENT, SESSION, state, expected_revision=0, labels={"city": "Lisbon"})
    claim(f"saved as revision 1 of {AGENT}/{SESSION}", saved.revision.revision == 1)
    return state


def go_on(client: SyncSessionClient, state: State) -> State:
    """Save the conversation with what came after."""
    heading("It goes on, and is saved again")
    show(CONTINUATION)
    state = conversation([*state.messages, *CONTINUATION])
    saved = client.save(AGENT, SESSION, state, expected_revision=1)
    claim("saved as revision 2, with 4 messages", (saved.revision.revision, saved.revision.message_count) == (2, 4))
    numbers = [revision.revision for revision in client.list_revisions(AGENT, SESSION)]
    claim("both revisions are kept", numbers == [2, 1])
    return state


def restore(client: SyncSessionClient, state: State) -> None:
    """Restore the newest and the first revision."""
    heading("Another worker restores it")
    restored = client.restore(AGENT, SESSION).decode()
    claim("all 4 messages are equal to what was saved", restored.messages == state.messages)
    claim(f"so is the time, to the microsecond: {restored.created_at}", restored.created_at == state.created_at)
    claim("the whole state is equal", restored == state)
    first = client.restore(AGENT, SESSION, revision=1).decode()
    claim("revision 1 is still the conversation's beginning", first.messages == BEGINNING)


def refusals(client: SyncSessionClient) -> None:
    """Show what cannot be saved."""
    heading("What is refused")
    state = conversation(BEGINNING)
    say("a new session under a name that is taken (expected_revision=0):")
    taken = refused(RevisionMismatch, lambda: client.save(AGENT, SESSION, state, expected_revision=0))
    claim("the error tells the newest revision: 2", taken.current_revision == 2)
    say("a name with a control character, and one that is too long:")
    for name in ("line\nbreak", "x" * 256):
        invalid = refused(InvalidField, lambda name=name: client.save(AGENT, name, state))  # type: ignore[misc]
        claim("the error names the field: session_name", invalid.field == "session_name")
    sessions = [(each.session_name, each.head_revision) for each in client.list_sessions(AGENT)]
    claim("nothing of it was stored", sessions == [(SESSION, 2)])


def damage_and_heal(client: SyncSessionClient, server: DemoServer, state: State) -> State:
    """Flip a byte in PostgreSQL, see it found, heal the session."""
    heading("A disk goes bad: one byte is flipped in PostgreSQL")
    client.save(AGENT, "another-trip", conversation(BEGINNING))
    flipped = asyncio.run(flip_a_byte(server.database_url, first_message=len(BEGINNING)))
    claim("one stored row, which only revision 2 needs, is damaged", flipped == 1)
    corrupt = refused(CorruptData, lambda: client.restore(AGENT, SESSION))
    claim("damaged data is never returned; the error names the revision: 2", corrupt.revision == 2)
    first = client.restore(AGENT, SESSION, revision=1).decode()
    claim("revision 1 does not need that row: it restores", first.messages == BEGINNING)
    other = client.restore(AGENT, "another-trip").decode()
    claim("other sessions go on as ever", other.messages == BEGINNING)
    say("the agent still has its state, and saves it self-contained:")
    saved = client.save(AGENT, SESSION, state, self_contained=True)
    healed = client.restore(AGENT, SESSION).decode()
    claim("healed: revision 3 restores, equal", saved.revision.revision == 3 and healed == state)
    return healed


def kill_and_start_again(server: DemoServer, state: State) -> None:
    """Show that what was acknowledged survives."""
    heading("kill -9, and start again")
    killed = server.pid
    server.kill()
    server.start()
    say(f"process {killed} was killed; process {server.pid} answers at {server.address}")
    with SyncSessionClient(server.address) as client:
        heads = {each.session_name: each.head_revision for each in client.list_sessions(AGENT)}
        claim("both sessions are listed, at their newest revisions", heads == {SESSION: 3, "another-trip": 1})
        claim("the conversation restores, equal", client.restore(AGENT, SESSION).decode() == state)


def conversation(messages: list[dict[str, str]]) -> State:
    """Return the agent's state with these messages."""
    return State(
        agent_id=AGENT,
        messages=messages,
        loop_state=LoopState.WAITING_FOR_INPUT,
        created_at=datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC),
        llm_provider="example-model",
        auth_context=AuthContext("api_key"),
    )


def show(messages: list[dict[str, str]]) -> None:
    """Print messages."""
    for each in messages:
        message(each["role"], each["content"])


def refused(kind: type[_Error], call: Callable[[], object]) -> _Error:
    """Return the error with which the call is refused, after showing it."""
    try:
        call()
    except kind as error:
        refusal(error)
        return error
    raise ClaimFailedError(f"refused with {kind.__name__}")


async def flip_a_byte(database_url: str, first_message: int) -> int:
    """Change one bit of the row that holds the session's messages from there on; return how many rows."""
    connection = await asyncpg.connect(database_url)
    try:
        done: str = await connection.execute(FLIP, SESSION, first_message)
    finally:
        await connection.close()
    return int(done.removeprefix("UPDATE "))


FLIP = """
UPDATE transcript_segments AS damaged SET payload = set_byte(payload, 9, get_byte(payload, 9) # 1)
FROM sessions
WHERE session_name = $1 AND damaged.transcript_id = head_transcript_id AND damaged.first_message = $2
"""


if __name__ == "__main__":
    sys.exit(main())
