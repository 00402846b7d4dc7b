"""The asyncio client."""

import os
import time
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Literal, Self

import grpc

from agent_sessions.connection import ChannelOptions, Connection, Metadata
from agent_sessions.errors import ClientClosed, StateTooLarge
from agent_sessions.large_states import Downloaded, LargeStates
from agent_sessions.pages import Page, Pager
from agent_sessions.request_ids import given_or_new, process_client_id
from agent_sessions.results import RestoredRevision, SavedRevision, StoredRevision
from agent_sessions.retry import RetryPolicy
from agent_sessions.saver import Saver
from agent_sessions.session import Session
from agent_sessions.state import State, StateCodec
from agent_sessions.targets import same_in_pieces, set_target
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.watch import SILENCE_TIMEOUT, EventType, KeepToken, Watch
from agent_sessions.watch_stream import WatchStream

DEFAULT_TIMEOUT = 30.0
"""Seconds."""

_VIEWS = {"basic": messages.REVISION_VIEW_BASIC, "full": messages.REVISION_VIEW_FULL}


class SessionClient:
    """Saves, restores and lists the sessions of agents.

        async with SessionClient("127.0.0.1:7450") as client:
            saved = await client.save("agent", "session", State(messages=[{"role": "user", "content": "hi"}]))
            state = (await client.restore("agent", "session")).decode()

    A state of any size is saved and restored by the same calls: what is larger than
    a message goes in pieces. Large ones need more than the default timeout.

    Every call takes `timeout`: seconds for all its attempts together, None for the
    client's default, math.inf for no bound. What is retryable is retried inside
    it, always with the same request_id, so that a change happens once. Calls raise
    the exceptions of `agent_sessions.errors`.

    Arguments:
        target: host:port of a server.
        client_id: names this worker in the events it causes; None: made once per process.
        timeout: default timeout in seconds.
        retry: how failed attempts are repeated; NO_RETRY for not at all.
        codec: turns State objects into what is stored and back.
        metadata: sent along with every call.
        credentials: for TLS; None: an insecure channel.
        channel_options: gRPC options that come after (and win over) this library's.
        stream: saves share one stream, which costs less than a call for each; where a
            stream does not work, calls are used by themselves. False: only calls.
        channel: a channel to use instead of one of this client's own. The caller
            closes it; target, credentials and channel_options are not used then.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7450",
        *,
        client_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        codec: StateCodec | None = None,
        metadata: Metadata = (),
        credentials: grpc.ChannelCredentials | None = None,
        channel_options: ChannelOptions = (),
        stream: bool = True,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self.client_id = process_client_id(os.getpid()) if client_id is None else client_id
        """Names this worker in events; a follower ignores its own."""
        self.codec = StateCodec() if codec is None else codec
        """Register classes, enums and modules here."""
        self._connection = Connection(
            target,
            timeout=timeout,
            retry=retry or RetryPolicy(),
            metadata=metadata,
            credentials=credentials,
            channel=channel,
            channel_options=channel_options,
        )
        self._saver = Saver(self._connection, stream=stream)
        self._large = LargeStates(self._connection)
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        """Return the client; nothing is connected before the first call."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Wait for saves in the stream (5 s at most), end other calls, close the channel. May be called twice."""
        await self._saver.close()
        for watch in list(self._watches):
            watch.end(ClientClosed("this client was closed"))
        await self._connection.close()

    @property
    def timeout(self) -> float:
        """The default timeout, in seconds."""
        return self._connection.timeout

    @property
    def retry(self) -> RetryPolicy:
        """How failed attempts are repeated."""
        return self._connection.retry

    def session(
        self,
        agent_id: str,
        session_name: str,
        *,
        user_id: str = "",
        exclusive: bool = False,
        client_id: str | None = None,
    ) -> Session:
        """Return an object that saves one session by sending what is new; nothing is sent yet.

        - user_id: on whose behalf the agent works; set once per session.
        - exclusive: nobody else is to write: a save after another writer's raises
          RevisionMismatch instead of following it.
        - client_id: names the worker in the events it causes; None: the client's.
        """
        return Session(
            self, self._saver, agent_id, session_name, user_id=user_id, exclusive=exclusive, client_id=client_id
        )

    async def save(
        self,
        agent_id: str,
        session_name: str = "",
        state: State | pb.AgentState | None = None,
        *,
        expected_revision: int | None = None,
        request_id: str | None = None,
        user_id: str = "",
        labels: Mapping[str, str] | None = None,
        checkpoint_id: str = "",
        metadata: Mapping[str, str] | None = None,
        self_contained: bool = False,
        timeout: float | None = None,
    ) -> SavedRevision:
        """Store a complete state as a new revision.

        - session_name: empty: the server makes a name; see the result's session.
        - state: required.
        - expected_revision: save only if this is the newest revision, 0 only if there
          is no such session; else RevisionMismatch.
        - request_id: a UUID; None: made here. The same one again stores nothing new.
        - user_id: on whose behalf the agent works; set once per session.
        - labels: None keeps the session's labels, anything else replaces them all.
        - checkpoint_id: the caller's own id of this revision, unique in the session.
        - metadata: kept with the revision.
        - self_contained: share nothing with what is stored, to heal a damaged session.
        """
        if state is None:
            raise TypeError("save() needs a state")
        request = messages.SaveSessionRequest(
            agent_id=agent_id,
            session_name=session_name,
            snapshot=self.codec.encode(state),
            expected_revision=expected_revision,
            request_id=given_or_new(request_id),
            client_id=self.client_id,
            user_id=user_id,
            labels=None if labels is None else messages.Labels(entries=labels),
            checkpoint_id=checkpoint_id,
            metadata=metadata,
            self_contained=self_contained,
        )
        answer = await self._saver.save_snapshot(request, self._deadline(timeout))
        return SavedRevision(answer.session, answer.revision, answer.replayed)

    async def restore(
        self,
        agent_id: str,
        session_name: str,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        message_limit: int = 0,
        request_id: str | None = None,
        client_id: str | None = None,
        timeout: float | None = None,
    ) -> RestoredRevision:
        """Return the newest state, or that of a revision, and record that it was restored.

        - revision, checkpoint_id: which revision, by number or by the caller's own
          id; at most one of them.
        - message_limit: only the newest so many messages; 0: all.
        - request_id: a UUID; None: made here.
        - client_id: names the worker in the event; None: the client's.
        """
        request = messages.RestoreSessionRequest(
            agent_id=agent_id,
            session_name=session_name,
            message_limit=message_limit,
            request_id=given_or_new(request_id),
            client_id=self.client_id if client_id is None else client_id,
        )
        set_target(request, revision, checkpoint_id)
        deadline = self._deadline(timeout)
        answer: messages.RestoreSessionResponse | Downloaded
        try:
            answer = await self._connection.call(self._connection.stub.RestoreSession, request, timeout)
        except StateTooLarge:
            answer = await self._large.download(same_in_pieces(request), _left(deadline))
        return RestoredRevision(answer.session, answer.revision, answer.state, self.codec)

    async def get_session(self, agent_id: str, session_name: str, *, timeout: float | None = None) -> pb.Session:
        """Describe a session, soft-deleted ones included."""
        request = messages.GetSessionRequest(agent_id=agent_id, session_name=session_name)
        return (await self._connection.call(self._connection.stub.GetSession, request, timeout)).session

    async def get_revision(
        self,
        agent_id: str,
        session_name: str,
        *,
        revision: int | None = None,
        checkpoint_id: str = "",
        view: Literal["basic", "full"] = "full",
        message_limit: int = 0,
        timeout: float | None = None,
    ) -> StoredRevision:
        """Read a revision (None: the newest) without recording it; works for soft-deleted sessions.

        The "basic" view has no state. The other arguments are those of `restore`.
        """
        request = messages.GetRevisionRequest(
            agent_id=agent_id, session_name=session_name, view=_VIEWS[view], message_limit=message_limit
        )
        set_target(request, revision, checkpoint_id)
        deadline = self._deadline(timeout)
        answer: messages.GetRevisionResponse | Downloaded
        try:
            answer = await self._connection.call(self._connection.stub.GetRevision, request, timeout)
        except StateTooLarge:
            answer = await self._large.download(same_in_pieces(request), _left(deadline))
        state = answer.state if view == "full" else None
        return StoredRevision(answer.session, answer.revision, state, self.codec)

    def list_sessions(
        self,
        agent_id: str = "",
        *,
        user_id: str = "",
        labels: Mapping[str, str] | None = None,
        name_prefix: str = "",
        show_deleted: bool = False,
        order_by: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Pager[pb.Session]:
        """List sessions, newest created first; all filters given must hold.

        - agent_id: empty: of all agents.
        - order_by: "create_time", "update_time" or "name", each alone or with " desc".
        - page_size: sessions fetched at a time; 0: the server's default (50).
        """

        async def fetch(page_token: str) -> Page[pb.Session]:
            request = messages.ListSessionsRequest(
                agent_id=agent_id,
                page_size=page_size,
                page_token=page_token,
                order_by=order_by,
                user_id=user_id,
                labels=labels,
                name_prefix=name_prefix,
                show_deleted=show_deleted,
            )
            answer = await self._connection.call(self._connection.stub.ListSessions, request, timeout)
            return Page(answer.sessions, answer.next_page_token)

        return Pager(fetch)

    def list_revisions(
        self,
        agent_id: str,
        session_name: str,
        *,
        metadata: Mapping[str, str] | None = None,
        order_by: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Pager[pb.Revision]:
        """List a session's revisions, newest first; works for soft-deleted sessions.

        - metadata: only revisions with all of these entries.
        - order_by: "revision" or "revision desc".
        - page_size: revisions fetched at a time; 0: the server's default (50).
        """

        async def fetch(page_token: str) -> Page[pb.Revision]:
            request = messages.ListRevisionsRequest(
                agent_id=agent_id,
                session_name=session_name,
                page_size=page_size,
                page_token=page_token,
                order_by=order_by,
                metadata=metadata,
            )
            answer = await self._connection.call(self._connection.stub.ListRevisions, request, timeout)
            return Page(answer.revisions, answer.next_page_token)

        return Pager(fetch)

    async def delete(
        self,
        agent_id: str,
        session_name: str,
        *,
        purge: bool = False,
        expected_revision: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> pb.Session:
        """Hide a session until `undelete`; with `purge` remove it for good and free its name."""
        request = messages.DeleteSessionRequest(
            agent_id=agent_id,
            session_name=session_name,
            purge=purge,
            expected_revision=expected_revision,
            request_id=given_or_new(request_id),
            client_id=self.client_id,
        )
        return (await self._connection.call(self._connection.stub.DeleteSession, request, timeout)).session

    async def undelete(
        self,
        agent_id: str,
        session_name: str,
        *,
        expected_revision: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> pb.Session:
        """Bring a soft-deleted session back as it was."""
        request = messages.UndeleteSessionRequest(
            agent_id=agent_id,
            session_name=session_name,
            expected_revision=expected_revision,
            request_id=given_or_new(request_id),
            client_id=self.client_id,
        )
        return (await self._connection.call(self._connection.stub.UndeleteSession, request, timeout)).session

    def watch(
        self,
        agent_id: str = "",
        session_name: str = "",
        *,
        types: Iterable[int] = (EventType.RESTORED,),
        resume_token: bytes = b"",
        keep_token: KeepToken | None = None,
        silence_timeout: float = SILENCE_TIMEOUT,
    ) -> Watch:
        """Iterate over what happens to a session, to all sessions of an agent, or to all; see Watch.

        - agent_id, session_name: empty: all; a session_name needs an agent_id, and need not exist yet.
        - types: EventTypes; none: only RESTORED.
        - resume_token: of an earlier watch, to go on after it, also with other filters; empty: from now on.
          CursorExpired if events after it are not kept any more.
        - keep_token: called with `Watch.resume_token` each time that it is newer, bookmarks' included, so
          that a watch which begins with the token kept last delivers every event at least once.
        - silence_timeout: seconds without any message after which a stream is given up for another; longer
          than the pause between the server's bookmarks.
        """
        request = messages.WatchSessionsRequest(agent_id=agent_id, session_name=session_name, resume_token=resume_token)
        request.types.extend(types)  # type: ignore[arg-type]  # which numbers there are, the server knows
        stream = WatchStream(self._connection, request, silence_timeout=silence_timeout)
        watch = Watch(stream, resume_token=resume_token, keep_token=keep_token)
        self._watches.add(watch)
        return watch

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._connection.timeout if timeout is None else timeout)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
