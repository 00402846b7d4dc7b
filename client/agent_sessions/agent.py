"""An agent that lives: its state, saved, restored, and kept up with what others restore."""

import asyncio
import inspect
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from agent_sessions.client import SessionClient
from agent_sessions.errors import AgentSessionsError, ClientClosed, DeadlineExceeded, SessionServiceError
from agent_sessions.held_token import HeldToken
from agent_sessions.last_applied import LastApplied
from agent_sessions.pages import Pager
from agent_sessions.request_ids import new_request_id
from agent_sessions.results import RestoredRevision, SavedRevision, StoredRevision
from agent_sessions.retry import is_retryable
from agent_sessions.session import Session
from agent_sessions.state import State
from agent_sessions.turn import Turn
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.watch import EventType, KeepToken, Watch

RestoreHook = Callable[["LiveAgent", pb.SessionEvent], Awaitable[object] | object]
FailureHook = Callable[["LiveAgent", pb.SessionEvent, AgentSessionsError], Awaitable[object] | object]

_Stored = TypeVar("_Stored", bound=StoredRevision)

_LOG = logging.getLogger(__name__)
_LONGEST_CLIENT_ID = 255


class LiveAgent:
    """An agent's state in a worker: saved by deltas, restored in place, and following what others restore.

        agent = LiveAgent(client, "support-bot", "first", on_restore=told)
        agent.state.messages.append({"role": "user", "content": "hello"})
        await agent.save()
        following = asyncio.create_task(agent.follow())
        await agent.following.wait()

    A worker that comes after another one begins with `load`, or `restore`. Both raise SessionNotFound where there
    is no session.

    A restore replaces `state` as a whole, but for llm_provider and auth_context: these stay what they
    are in this process, whatever was stored. It is one assignment, made when everything has been read and
    decoded: one that fails leaves the state, and what the next save is based on, as they were.

    Saves and restores are made one after another, in the order of the calls; a save stores the state as
    it is when its turn comes. Take `agent.state` anew after an await: another one may be there.

    What was restored becomes the newest revision by the next save only. Until then `follow` keeps no resume token:
    a worker that goes on from the one that was kept last gets the restore again, and applies it.

    Arguments:
        client: its codec, retries and timeout are used.
        agent_id: the agent.
        session_name: the session; `restore` can change to another one.
        state: to begin with; None: an empty one.
        user_id: on whose behalf the agent works; set once per session.
        exclusive: as for `SessionClient.session`.
        client_id: names this agent in the events it causes, which it does not follow; None: made from
            the client's and a random part, so that two agents of a process, and a restore by
            the client itself, are told apart.
        on_restore: called with this agent and the event after `follow` has replaced the state, a plain
            function or a coroutine function; the next event waits for it. If it raises (also a CancelledError,
            while following itself is not cancelled), that is logged: the restore has been made, and following
            goes on.
        on_failure: called likewise with the error, too, when a restore of somebody else cannot be followed.
    """

    def __init__(
        self,
        client: SessionClient,
        agent_id: str,
        session_name: str,
        state: State | None = None,
        *,
        user_id: str = "",
        exclusive: bool = False,
        client_id: str | None = None,
        on_restore: RestoreHook | None = None,
        on_failure: FailureHook | None = None,
    ) -> None:
        self.agent_id = agent_id
        """The agent."""
        self.state = State() if state is None else state
        """The agent's state. Assign another, or change what is in it, and save."""
        self.client_id = _own_client_id(client.client_id) if client_id is None else client_id
        """Names this agent in events."""
        self.on_restore = on_restore
        self.on_failure = on_failure
        self.following = asyncio.Event()
        """Set while the server watches for `follow`: what others restore from then on reaches this agent."""
        self._client = client
        self._user_id = user_id
        self._exclusive = exclusive
        self._session = self._open(session_name)
        self._turn = Turn()
        self._last = LastApplied()
        self._tokens = HeldToken()
        self._watch: Watch | None = None

    @property
    def session_name(self) -> str:
        """The session's name."""
        return self._session.session_name

    @property
    def revision(self) -> int:
        """The revision that was saved or restored last; 0: none yet."""
        return self._session.revision

    async def save(
        self,
        *,
        checkpoint_id: str = "",
        metadata: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> SavedRevision:
        """Save the state; what did not change is not sent again. As `Session.save`.

        A token that `follow` holds back is then given to its keep_token.
        """

        async def save(deadline: float) -> SavedRevision:
            saved = await self._session.save(
                self.state, checkpoint_id=checkpoint_id, metadata=metadata, labels=labels, timeout=_left(deadline)
            )
            self._tokens.saved()
            return saved

        saved = await self._turn.run(save, self._seconds(timeout))
        try:
            await self._tokens.give()
        except (Exception, asyncio.CancelledError) as error:
            if _is_ours(error):
                raise
            _LOG.exception("a resume token of the agent %s was not kept; its next save tries again", self.agent_id)
        return saved

    async def restore(
        self,
        session_name: str | None = None,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        timeout: float | None = None,
    ) -> RestoredRevision:
        """Replace the state by the newest one, or that of a revision, and go on from it.

        Of another session, if it is named: saves go there from then on, and `follow` follows there. Raises as
        `SessionClient.restore` and `StoredRevision.decode` do; nothing has changed then.
        """
        request_id = new_request_id()

        async def read(session: Session, timeout: float) -> RestoredRevision:
            def accept(restored: RestoredRevision) -> None:
                self._take_over(session, restored)
                self._last.restored(restored.session, request_id)
                self._tokens.applied()

            with self._tokens.restoring():
                return await session.restore(
                    revision=revision,
                    checkpoint_id=checkpoint_id,
                    request_id=request_id,
                    accept=accept,
                    timeout=timeout,
                )

        return await self._read(session_name, read, timeout)

    async def load(
        self,
        session_name: str | None = None,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        timeout: float | None = None,
    ) -> StoredRevision:
        """Do as `restore` does, without recording it: for a worker that goes on where another one stopped.

        `follow` with the other one's token then applies all that was restored after it, whatever the clocks
        say, which it does not after a restore of one's own, because that is newer.
        """

        async def read(session: Session, timeout: float) -> StoredRevision:
            def accept(stored: StoredRevision) -> None:
                self._take_over(session, stored)
                self._last.loaded()

            return await session.load(revision=revision, checkpoint_id=checkpoint_id, accept=accept, timeout=timeout)

        return await self._read(session_name, read, timeout)

    def list_sessions(self, **filters: Any) -> Pager[pb.Session]:
        """List the agent's sessions; the arguments are those of `SessionClient.list_sessions`."""
        return self._client.list_sessions(self.agent_id, **filters)

    async def follow(self, *, resume_token: bytes = b"", keep_token: KeepToken | None = None) -> None:
        """Apply what others restore in this session, as long as this is not cancelled.

        A RESTORED event of somebody else replaces the state by that revision, as `restore` does, but without
        being an event itself: agents that follow a session do not answer each other. Left out are this agent's
        own events, repeats, and what is older than what was applied last. A restore comes after a save that is
        under way, and before one that is not.

        What fails for the moment is tried again. A revision that cannot be read (purged, damaged, not
        decodable) is logged and told to `on_failure`, the state stays, and following goes on.

        - resume_token: as for `SessionClient.watch`.
        - keep_token: likewise, but not called while a restore that was applied, a followed one or one of this
          agent's own, has not been saved: the newest token is held back, and given to keep_token after the
          next successful `save`. If it raises then, that is logged, and the token held for the save after
          that. A worker that goes on from a kept token gets such a restore again, and applies it.

        Raises CursorExpired (`restore`, then follow anew), ClientClosed, and what no retry helps against.
        """
        if self._watch is not None:
            raise RuntimeError("this agent follows its session already")
        self._tokens.begin(keep_token)
        try:
            while True:
                self._last.begin_stream(from_now=not resume_token)
                self._watch = watch = self._client.watch(
                    self.agent_id,
                    self.session_name,
                    types=(EventType.RESTORED,),
                    resume_token=resume_token,
                    keep_token=self._done_with,
                )
                async with watch:
                    self.following.set()
                    async for event in watch:
                        await self._follow(event)
                # Closed by `restore`: the same place in the log holds for another session, too.
                self.following.clear()
                resume_token = watch.resume_token
        finally:
            self.following.clear()
            self._watch = None

    async def _read(
        self,
        session_name: str | None,
        read: Callable[[Session, float], Awaitable[_Stored]],
        timeout: float | None,
    ) -> _Stored:
        """Have a session's revision taken over in turn; `follow` follows there."""
        before = self._session

        async def in_turn(deadline: float) -> _Stored:
            is_here = session_name is None or session_name == self.session_name
            return await read(self._session if is_here else self._open(str(session_name)), _left(deadline))

        stored = await self._turn.run(in_turn, self._seconds(timeout))
        if self._watch is not None and self._session is not before:
            await self._watch.aclose()  # `follow` opens another one
        return stored

    async def _done_with(self, token: bytes) -> None:
        await self._tokens.done_with(token)

    async def _follow(self, event: pb.SessionEvent) -> None:
        if event.client_id == self.client_id:
            self._last.pass_by(event)
            return
        attempts = 0
        while True:
            try:
                if await self._turn.run(lambda deadline: self._apply(event, deadline), self._client.timeout):
                    await self._call(self.on_restore, event)
                return
            except ClientClosed:
                raise
            except AgentSessionsError as error:
                attempts += 1
                if not _may_pass(error) or not self._client.retry.allows(attempts):
                    await self._failed(event, error)
                    return
                delay = error.retry_delay or 0.0 if isinstance(error, SessionServiceError) else 0.0
                await asyncio.sleep(delay + self._client.retry.backoff(attempts))

    async def _apply(self, event: pb.SessionEvent, deadline: float) -> bool:
        """Take over what somebody else restored, unless it is older than what is here."""
        session = self._session
        if event.session_name != session.session_name or self._last.is_older(event):
            self._last.pass_by(event)
            return False

        def accept(stored: StoredRevision) -> None:
            self._take_over(session, stored)
            self._last.applied(event)
            self._tokens.applied()

        await session.load(revision=event.revision, accept=accept, timeout=_left(deadline))
        return True

    def _take_over(self, session: Session, stored: StoredRevision) -> None:
        decoded = stored.decode()
        kept = replace(decoded, llm_provider=self.state.llm_provider, auth_context=self.state.auth_context)
        self.state, self._session = kept, session

    async def _failed(self, event: pb.SessionEvent, error: AgentSessionsError) -> None:
        where = f"agents/{event.agent_id}/sessions/{event.session_name}"
        _LOG.error("%s: revision %d was restored, and cannot be followed: %s", where, event.revision, error)
        await self._call(self.on_failure, event, error)

    async def _call(self, hook: Callable[..., Awaitable[object] | object] | None, *arguments: object) -> None:
        if hook is None:
            return
        try:
            result = hook(self, *arguments)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if _is_ours(error):
                raise
            _LOG.exception("a hook of the agent %s failed", self.agent_id)

    def _open(self, session_name: str) -> Session:
        return self._client.session(
            self.agent_id,
            session_name,
            user_id=self._user_id,
            exclusive=self._exclusive,
            client_id=self.client_id,
        )

    def _seconds(self, timeout: float | None) -> float:
        return self._client.timeout if timeout is None else timeout


def _own_client_id(client_id: str) -> str:
    random = uuid.uuid4().hex[:8]
    return f"{client_id[: _LONGEST_CLIENT_ID - len(random) - 1]}/{random}"


def _is_ours(error: BaseException) -> bool:
    """Tell whether the task that runs here is being cancelled, rather than one that a hook waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _may_pass(error: AgentSessionsError) -> bool:
    """Tell whether reading the same revision may succeed later."""
    if isinstance(error, DeadlineExceeded):
        return True
    return isinstance(error, SessionServiceError) and is_retryable(error)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
