"""One session as a worker writes it: remembers what it saved last, and sends what is new."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from grpc import StatusCode

from agent_sessions.encoded_state import Change, EncodedState, SmallFields, encode_base, encode_delta
from agent_sessions.errors import AgentIdMismatch, BaseRevisionNotFound, MessageTooLarge, RevisionMismatch
from agent_sessions.first_appends import FirstAppends
from agent_sessions.large_states import LARGEST_REQUEST, is_large
from agent_sessions.request_ids import new_request_id
from agent_sessions.results import RestoredRevision, SavedRevision, StoredRevision
from agent_sessions.saver import SaveAnswer, Saver
from agent_sessions.state import State
from agent_sessions.turn import Turn
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.wire import bytes_tag, integer, number_tag, varint

if TYPE_CHECKING:
    from agent_sessions.client import SessionClient

_Result = TypeVar("_Result")
_Stored = TypeVar("_Stored", bound=StoredRevision)
_Request = messages.SaveSessionRequest
_SNAPSHOT = bytes_tag(_Request.SNAPSHOT_FIELD_NUMBER)
_DELTA = bytes_tag(_Request.DELTA_FIELD_NUMBER)
_EXPECTED_REVISION = number_tag(_Request.EXPECTED_REVISION_FIELD_NUMBER)
_REQUEST_ID = bytes_tag(_Request.REQUEST_ID_FIELD_NUMBER) + varint(len(new_request_id()))


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""Leave this as it was saved last."""


class Session:
    """A session of an agent, for the one who writes it; made by `SessionClient.session`.

        session = client.session("agent", "session")
        await session.append([{"role": "user", "content": "hi"}])

    Every save sends what changed since the last one that was acknowledged (the
    base), whatever the length of the history; where the server does not have the
    base any more, the whole state. The encoded messages are kept in memory for that.

    Saves are made one after another, in the order of the calls. One that raised is
    not part of what the next goes on from: after a timeout or a cancellation it may
    be stored all the same, but then as a branch that the history keeps. Append again
    what is to be there. (Only where a session was begun by an append larger than a
    request, which was stored though it raised, the next one raises RevisionMismatch.)

    If another writer saved meanwhile, the last writer wins: the next save becomes
    the newest revision with this object's state, and the other's stays in the
    history. An exclusive session raises RevisionMismatch instead, also when its own
    timed-out save turns out to be stored; go on by `restore`.

    A session that exists is taken over by `restore` (or `load`), or by saving its
    complete state. `append` without either begins a new one, and raises
    RevisionMismatch if there is one of that name.
    """

    def __init__(
        self,
        client: "SessionClient",
        saver: Saver,
        agent_id: str,
        session_name: str,
        *,
        user_id: str,
        exclusive: bool,
        client_id: str | None,
    ) -> None:
        if not session_name:
            raise ValueError("a Session needs a session_name")
        self.agent_id = agent_id
        """The agent."""
        self.session_name = session_name
        """The session's name."""
        self.revision = 0
        """The base's number: the revision that was acknowledged or read last; 0: none yet."""
        self._base = b""
        """The base, as a delta names it."""
        self._head = 0
        self._state = EncodedState()
        self._client = client
        self._saver = saver
        self._exclusive = exclusive
        self._timeout = client.timeout
        self._client_id = client.client_id if client_id is None else client_id
        names = _Request(agent_id=agent_id, session_name=session_name, client_id=self._client_id, user_id=user_id)
        self._beginning = names.SerializeToString() + _REQUEST_ID
        """Of every request, up to its request_id."""
        self._turn = Turn()
        self._first = FirstAppends()

    @property
    def message_count(self) -> int:
        """Messages in the base."""
        return len(self._state.messages)

    async def append(
        self,
        new_messages: Iterable[Any] = (),
        *,
        loop_state: int | Keep = KEEP,
        llm_provider: str | Enum | type | ModuleType | Keep = KEEP,
        auth_context: Any = KEEP,
        set_values: Mapping[str, Any] | None = None,
        remove_values: Iterable[str] = (),
        checkpoint_id: str = "",
        metadata: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> SavedRevision:
        """Save the base with these messages after it. The cost does not depend on the history's length.

        - new_messages, set_values: as in a State.
        - loop_state, llm_provider, auth_context: as in a State; not given: as saved last.
        - remove_values: names of values to remove; one that is also in set_values is set.
        - checkpoint_id, metadata, labels, timeout: as for `SessionClient.save`.
        """
        encode = self._client.codec.encode_message
        appended = [
            encode(message, f"messages[{place}]").SerializeToString(deterministic=True)
            for place, message in enumerate(new_messages)
        ]
        keeps_small = loop_state is KEEP and llm_provider is KEEP and auth_context is KEEP
        small = {} if keeps_small else self._small(loop_state, llm_provider, auth_context)
        values = self._values(set_values) if set_values else {}
        removed = tuple(remove_values)
        notes = _notes(checkpoint_id, metadata, labels) if checkpoint_id or metadata or labels is not None else b""
        # As `_in_turn` and `_send_change` do it, which take more coroutines: this is what is called for every message.
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        if self._turn.taken:
            await self._turn.wait_in_call(deadline, seconds)
            seconds = _left(deadline)
        else:
            self._turn.taken = True
        try:
            state = self._state
            now = replace(state.small, **small) if small else state.small
            if not self.revision and not self._exclusive:
                answer: SaveAnswer = await self._begin(Change(now, appended, None, values, removed), notes, deadline)
            else:
                request_id = new_request_id()
                data = self._delta(request_id, encode_delta(self._base, now, appended, values, removed), notes)
                try:
                    if is_large(len(data), len(appended)):
                        raise _too_large()
                    answer = await self._saver.save(data, request_id, seconds)
                except (BaseRevisionNotFound, MessageTooLarge) as refusal:
                    whole = state.copy()
                    whole.append(now, appended, values, removed)
                    answer = await self._send_whole(whole, refusal, notes, deadline)
            state.append(now, appended, values, removed)
            return self._acknowledged(answer)
        finally:
            self._turn.pass_on()

    async def save(
        self,
        state: State | pb.AgentState,
        *,
        checkpoint_id: str = "",
        metadata: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> SavedRevision:
        """Save a complete state; what it shares with the base is not sent again.

        The first one is sent whole, and so is one with another created_at. Each
        message is encoded to see whether it changed; `append` avoids that.
        """
        if state.agent_id not in ("", self.agent_id):
            raise AgentIdMismatch(f"the state is of agent {state.agent_id!r}, the session of {self.agent_id!r}")
        encoded = EncodedState.of(self._client.codec.encode(state))
        notes = _notes(checkpoint_id, metadata, labels)

        async def save(deadline: float) -> SavedRevision:
            change = self._state.change_to(encoded) if self.revision else None
            if change is None:
                saved = await self._send_snapshot(encoded, notes, deadline)
            else:
                saved = await self._send_change(change, encoded, notes, deadline)
            self._first.forget()
            self._state = encoded
            return self._acknowledged(saved)

        return await self._in_turn(save, timeout)

    async def restore(
        self,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        request_id: str | None = None,
        accept: Callable[[RestoredRevision], None] | None = None,
        timeout: float | None = None,
    ) -> RestoredRevision:
        """Read the newest state, or that of a revision, record that it was restored, and go on from it.

        After an older revision the next save is the newest one again, and has the older one as its parent.
        `accept` is called with what was read, before anything changes here; if it raises, nothing does.
        """

        async def restore(deadline: float) -> RestoredRevision:
            restored = await self._client.restore(
                self.agent_id,
                self.session_name,
                revision=revision,
                checkpoint_id=checkpoint_id,
                request_id=request_id,
                client_id=self._client_id,
                timeout=_left(deadline),
            )
            self._go_on_from(restored, restored.agent_state, accept)
            return restored

        return await self._in_turn(restore, timeout)

    async def load(
        self,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        accept: Callable[[StoredRevision], None] | None = None,
        timeout: float | None = None,
    ) -> StoredRevision:
        """Do as `restore` does, without recording it."""

        async def load(deadline: float) -> StoredRevision:
            stored = await self._client.get_revision(
                self.agent_id,
                self.session_name,
                revision=revision,
                checkpoint_id=checkpoint_id,
                timeout=_left(deadline),
            )
            self._go_on_from(stored, stored.agent_state or pb.AgentState(), accept)
            return stored

        return await self._in_turn(load, timeout)

    async def _in_turn(self, work: Callable[[float], Awaitable[_Result]], timeout: float | None) -> _Result:
        """Do one thing after the other, in the order of the calls; `work` is given its deadline."""
        return await self._turn.run(work, self._timeout if timeout is None else timeout)

    async def _begin(self, change: Change, notes: bytes, deadline: float) -> SaveAnswer:
        """Send the first append: it begins a session, and must not end another's."""
        whole = self._state.copy()
        whole.append(change.small, change.appended, change.set_values, change.remove_values)
        try:
            answer = await self._send_change(change, whole, notes, deadline, 0)
        except RevisionMismatch:
            if not await self._first.made_the_session(self._saver, deadline):
                raise
            answer = await self._send_change(change, whole, notes, deadline)
        self._first.forget()
        return answer

    async def _send_change(
        self, change: Change, whole: EncodedState, notes: bytes, deadline: float, expected: int | None = None
    ) -> SaveAnswer:
        """Send a delta, or the whole state instead."""
        request_id = new_request_id()
        data = self._delta(request_id, change.as_delta(self._base), notes, expected)
        try:
            if is_large(len(data), len(change.appended)):
                raise _too_large()
            return await self._saver.save(data, request_id, _left(deadline))
        except (BaseRevisionNotFound, MessageTooLarge) as refusal:
            return await self._send_whole(whole, refusal, notes, deadline, expected)
        except RevisionMismatch:
            raise
        except BaseException:
            if expected is not None:
                self._first.failed(data, request_id)
            raise

    async def _send_whole(
        self,
        whole: EncodedState,
        refusal: BaseRevisionNotFound | MessageTooLarge,
        notes: bytes,
        deadline: float,
        expected: int | None = None,
    ) -> SaveAnswer:
        """Send the whole state where a delta could not be saved: its base is gone, or it is too large."""
        if isinstance(refusal, BaseRevisionNotFound):
            if self._exclusive:
                raise self._another(refusal) from refusal
            expected = None
        elif refusal.limit is None:
            raise refusal
        return await self._send_snapshot(whole, notes, deadline, expected)

    async def _send_snapshot(
        self, state: EncodedState, notes: bytes, deadline: float, expected: int | None = None
    ) -> SaveAnswer:
        request_id = new_request_id()
        data = self._snapshot(request_id, state.as_snapshot(), notes, expected)
        if not is_large(len(data), len(state.messages)):
            try:
                return await self._saver.save(data, request_id, _left(deadline))
            except MessageTooLarge as error:
                if error.limit is None or not state.messages:
                    raise
        header = self._snapshot(request_id, state.without_messages(), notes, expected)
        return await self._saver.upload(header, state.messages, request_id, deadline)

    def _delta(self, request_id: str, delta: bytes, notes: bytes, expected: int | None = None) -> bytes:
        """Put a SaveSessionRequest with a delta together."""
        if self._exclusive:
            expected = self._head
        expectation = b"" if expected is None else integer(_EXPECTED_REVISION, expected)
        length = varint(len(delta))
        return b"".join((self._beginning, request_id.encode(), _DELTA, length, delta, notes, expectation))

    def _snapshot(self, request_id: str, content: list[bytes], notes: bytes, expected: int | None) -> bytes:
        """Put a SaveSessionRequest with a snapshot together."""
        if self._exclusive:
            expected = self._head
        expectation = b"" if expected is None else integer(_EXPECTED_REVISION, expected)
        length = varint(sum(map(len, content)))
        parts = (self._beginning, request_id.encode(), _SNAPSHOT, length, *content, notes, expectation)
        return b"".join(parts)

    def _another(self, gone: BaseRevisionNotFound) -> RevisionMismatch:
        """Return what an exclusive session raises where the head has the expected number, but not its base."""
        return RevisionMismatch(
            f"{self.agent_id}/{self.session_name}: revision {self.revision} is not there, or not as it was: "
            "another session may have the name by now",
            code=StatusCode.ABORTED,
            reason="REVISION_MISMATCH",
            metadata={"expected_revision": str(self._head), "current_revision": str(self._head)} | dict(gone.metadata),
        )

    def _acknowledged(self, answer: SaveAnswer) -> SavedRevision:
        revision = answer.revision
        self.revision = self._head = revision.revision
        self._base = encode_base(self.revision, revision.etag)
        return SavedRevision(answer.session, revision, answer.replayed)

    def _go_on_from(self, stored: _Stored, state: pb.AgentState, accept: Callable[[_Stored], None] | None) -> None:
        copy = pb.AgentState()
        copy.CopyFrom(state)
        encoded = EncodedState.of(copy)
        if accept is not None:
            accept(stored)
        self._first.forget()
        self._state = encoded
        self.revision = stored.revision.revision
        self._base = encode_base(self.revision, stored.revision.etag)
        self._head = stored.session.head_revision

    def _small(self, loop_state: Any, llm_provider: Any, auth_context: Any) -> dict[str, Any]:
        """Return the given ones of SmallFields' arguments."""
        if loop_state is KEEP and llm_provider is KEEP and auth_context is KEEP:
            return {}
        every = {"loop_state": loop_state, "llm_provider": llm_provider, "auth_context": auth_context}
        given = {name: value for name, value in every.items() if value is not KEEP}
        small: SmallFields = EncodedState.of(self._client.codec.encode(State(**given))).small
        names = {"loop_state": "loop_state", "llm_provider": "llm_provider", "auth_context": "auth_type"}
        return {names[name]: getattr(small, names[name]) for name in given}

    def _values(self, given: Mapping[str, Any]) -> dict[str, bytes]:
        return EncodedState.of(self._client.codec.encode(State(values=dict(given)))).values


def _notes(checkpoint_id: str, metadata: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bytes:
    """Encode what a save says beside the state, as fields of a SaveSessionRequest."""
    if not checkpoint_id and not metadata and labels is None:
        return b""
    entries = None if labels is None else messages.Labels(entries=labels)
    return _Request(checkpoint_id=checkpoint_id, metadata=metadata, labels=entries).SerializeToString()


def _too_large() -> MessageTooLarge:
    """Return what a server would answer: it need not be asked."""
    return MessageTooLarge("more than a request takes", metadata={"limit": str(LARGEST_REQUEST)})


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
