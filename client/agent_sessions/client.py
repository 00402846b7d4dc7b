"""The asyncio client."""

import os
import socket
import time
import uuid
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Literal, Self

import grpc

from agent_sessions.connection import ChannelOptions, Connection, Metadata
from agent_sessions.errors import MessageTooLarge, StateTooLarge
from agent_sessions.large_states import Downloaded, LargeStates, is_large
from agent_sessions.pages import Page, Pager
from agent_sessions.request_ids import new_request_id
from agent_sessions.results import RestoredRevision, SavedRevision, StoredRevision
from agent_sessions.retry import RetryPolicy
from agent_sessions.saver import SaveAnswer, Saver
from agent_sessions.session import Session
from agent_sessions.state import State, StateCodec
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages

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
        self.client_id = _process_client_id(os.getpid()) if client_id is None else client_id
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
        await self._connection.close()

    def session(self, agent_id: str, session_name: str, *, user_id: str = "", exclusive: bool = False) -> Session:
        """Return an object that saves one session by sending what is new; nothing is sent yet.

        - user_id: on whose behalf the agent works; set once per session.
        - exclusive: nobody else is to write: a save after another writer's raises
          RevisionMismatch instead of following it.
        """
        return Session(
            self,
            self._saver,
            agent_id,
            session_name,
            user_id=user_id,
            exclusive=exclusive,
            timeout=self._connection.timeout,
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
            request_id=_request_id(request_id),
            client_id=self.client_id,
            user_id=user_id,
            labels=None if labels is None else messages.Labels(entries=labels),
            checkpoint_id=checkpoint_id,
            metadata=metadata,
            self_contained=self_contained,
        )
        answer = await self._save(request, self._deadline(timeout))
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
        timeout: float | None = None,
    ) -> RestoredRevision:
        """Return the newest state, or that of a revision, and record that it was restored.

        - revision, checkpoint_id: which revision, by number or by the caller's own
          id; at most one of them.
        - message_limit: only the newest so many messages; 0: all.
        - request_id: a UUID; None: made here.
        """
        request = messages.RestoreSessionRequest(
            agent_id=agent_id,
            session_name=session_name,
            message_limit=message_limit,
            request_id=_request_id(request_id),
            client_id=self.client_id,
        )
        _set_target(request, revision, checkpoint_id)
        deadline = self._deadline(timeout)
        answer: messages.RestoreSessionResponse | Downloaded
        try:
            answer = await self._connection.call(self._connection.stub.RestoreSession, request, timeout)
        except StateTooLarge:
            answer = await self._large.download(_download(request), _left(deadline))
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
        _set_target(request, revision, checkpoint_id)
        deadline = self._deadline(timeout)
        answer: messages.GetRevisionResponse | Downloaded
        try:
            answer = await self._connection.call(self._connection.stub.GetRevision, request, timeout)
        except StateTooLarge:
            answer = await self._large.download(_download(request), _left(deadline))
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
            request_id=_request_id(request_id),
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
            request_id=_request_id(request_id),
            client_id=self.client_id,
        )
        return (await self._connection.call(self._connection.stub.UndeleteSession, request, timeout)).session

    async def _save(self, request: messages.SaveSessionRequest, deadline: float) -> SaveAnswer:
        """Send a snapshot as one request or, if that is too large, as an upload. Uses it up."""
        history = request.snapshot.message_history
        data = request.SerializeToString()
        if not is_large(len(data), len(history)):
            try:
                return await self._saver.save(data, request.request_id, _left(deadline))
            except MessageTooLarge as error:  # this server's limit is lower than usual
                if error.limit is None or not history:
                    raise
        del data
        encoded = [message.SerializeToString(deterministic=True) for message in history]
        request.snapshot.ClearField("message_history")
        return await self._saver.upload(request.SerializeToString(), encoded, request.request_id, deadline)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._connection.timeout if timeout is None else timeout)


def _request_id(given: str | None) -> str:
    return new_request_id() if given is None else given


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _download(
    request: messages.RestoreSessionRequest | messages.GetRevisionRequest,
) -> messages.DownloadSessionRequest:
    """Return the request for the same state in pieces, recorded or not as by that one."""
    download = messages.DownloadSessionRequest(
        agent_id=request.agent_id, session_name=request.session_name, message_limit=request.message_limit
    )
    if isinstance(request, messages.RestoreSessionRequest):
        download.request_id, download.client_id = request.request_id, request.client_id
    else:
        download.read_only = True
    _set_target(download, request.revision or None, request.checkpoint_id)
    return download


def _set_target(
    request: messages.RestoreSessionRequest | messages.GetRevisionRequest | messages.DownloadSessionRequest,
    revision: int | None,
    checkpoint_id: str,
) -> None:
    if revision is not None and checkpoint_id:
        raise ValueError("revision and checkpoint_id exclude each other")
    if revision is not None:
        request.revision = revision
    elif checkpoint_id:
        request.checkpoint_id = checkpoint_id


@cache
def _process_client_id(pid: int) -> str:
    """Return one id for this process; its pid tells a fork from its parent."""
    return f"{socket.gethostname()[:64]}-{pid}-{uuid.uuid4().hex[:8]}"
