"""agent_sessions.v1.SessionService: each RPC is parse, one use case, convert."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceServicer

from session_service.api import convert, fields, pagination, states, watching
from session_service.api.interceptors.call import current_call
from session_service.api.save_stream import SaveStream
from session_service.api.transfers import Transfers
from session_service.api.upload_stream import UploadStream
from session_service.auth.principal import Principal
from session_service.sessions.events import EventWatcher
from session_service.sessions.manager import SessionManager
from session_service.sessions.model import Save, Tenant

UPLOAD_READY = (("upload-ready", "1"),)
"""Initial metadata of an upload that there is room for; a refusal has none."""

REVISION_VIEWS = pb.RevisionView.DESCRIPTOR.values_by_number

Context = Any
"""grpc.aio.ServicerContext, as the interceptors make it: write() takes messages, and bytes in wire form."""

Encoded = Any
"""An answer, perhaps in wire form already; the generated base class knows messages only."""


class SessionServicer(SessionServiceServicer):
    """Runs behind the interceptors, which authenticate, log, count, and turn exceptions into statuses."""

    def __init__(
        self,
        manager: SessionManager,
        max_messages: int = 20_000,
        on_error: Callable[[str], None] = lambda _: None,
        transfers: Transfers | None = None,
        *,
        watcher: EventWatcher,
    ) -> None:
        self._manager = manager
        self._max_messages = max_messages
        self._on_error = on_error
        self._transfers = transfers or Transfers()
        self._watcher = watcher
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End streams: they answer what they have taken, and no more."""
        self._draining.set()

    async def SaveSession(self, request: pb.SaveSessionRequest, context: Context) -> pb.SaveSessionResponse:
        """Store a revision."""
        tenant, caller = await self._caller()
        save = convert.save(request, tenant, caller, self._max_messages)
        return convert.saved(await self._manager.save(save), pb.SaveSessionResponse())

    async def SaveSessions(
        self, request_iterator: AsyncIterator[pb.SaveSessionsRequest], context: Context
    ) -> AsyncIterator[pb.SaveSessionsResponse]:
        """Store many revisions."""
        tenant, caller = await self._caller()

        def parse(request: pb.SaveSessionRequest) -> Save:
            return convert.save(request, tenant, caller, self._max_messages)

        saves = SaveStream(parse, self._manager.save_many, self._draining, self._on_error)
        async for frame in saves.answers(request_iterator):
            yield frame

    async def UploadSession(
        self, request_iterator: AsyncIterator[pb.UploadSessionRequest], context: Context
    ) -> pb.UploadSessionResponse:
        """Store a revision that comes in pieces."""
        tenant, caller = await self._caller()
        call = current_call.get()
        async with self._transfers.begin():
            await context.send_initial_metadata(UPLOAD_READY)
            call.is_read_to_its_end = True
            stream = UploadStream(request_iterator, self._transfers, self._max_messages)
            header = await stream.header()
            call.names(header)
            save = stream.begin(convert.save(header, tenant, caller, self._max_messages))
            del header
            async with aclosing(stream.batches()) as batches:
                done = await self._manager.upload(save, batches)
            return convert.saved(done, pb.UploadSessionResponse())

    async def RestoreSession(self, request: pb.RestoreSessionRequest, context: Context) -> Encoded:
        """Return a state and record that it was restored."""
        tenant, caller = await self._caller()
        found = await self._manager.restore(
            convert.change(request, tenant, caller), convert.target(request), convert.message_limit(request)
        )
        answer = pb.RestoreSessionResponse(
            session=convert.session(found.session), revision=convert.revision(found.revision)
        )
        return states.append_to(answer, found, request.agent_id)

    async def DownloadSession(  # type: ignore[override]  # it writes by itself, to know when the caller does not read
        self, request: pb.DownloadSessionRequest, context: Context
    ) -> None:
        """Return a state in pieces."""
        tenant, caller = await self._caller()
        change = convert.change(request, tenant, caller)
        target, limit = convert.target(request), convert.message_limit(request)
        async with self._transfers.begin():
            found = await self._manager.download(change, target, limit, recorded=not request.read_only)
            header = pb.DownloadHeader(
                session=convert.session(found.session), revision=convert.revision(found.revision)
            )
            send = self._transfers.caller
            await send(context.write(states.header_of(header, found.state, request.agent_id)))
            async with aclosing(found.parts) as parts:
                async for part in parts:
                    await send(context.write(states.batch_of(part)))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Describe a session."""
        tenant, _ = await self._caller()
        found = await self._manager.get_session(convert.key(request, tenant))
        return pb.GetSessionResponse(session=convert.session(found))

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Context) -> Encoded:
        """Return a revision, with or without its state."""
        tenant, _ = await self._caller()
        view = fields.known("view", request.view, REVISION_VIEWS)
        found = await self._manager.get_revision(
            convert.key(request, tenant),
            convert.target(request),
            with_state=view == pb.REVISION_VIEW_FULL,
            message_limit=convert.message_limit(request),
        )
        answer = pb.GetRevisionResponse(
            session=convert.session(found.session), revision=convert.revision(found.revision)
        )
        return answer if found.pieces is None else states.append_to(answer, found, request.agent_id)

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """List sessions, page by page."""
        tenant, _ = await self._caller()
        page, more = await self._manager.list_sessions(convert.session_query(request, tenant))
        token = pagination.after_session(request, tenant, page[-1]) if more else ""
        return pb.ListSessionsResponse(sessions=map(convert.session, page), next_page_token=token)

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Context) -> pb.ListRevisionsResponse:
        """List revisions, page by page."""
        tenant, _ = await self._caller()
        page, more = await self._manager.list_revisions(convert.revision_query(request, tenant))
        token = pagination.after_revision(request, tenant, page[-1]) if more else ""
        return pb.ListRevisionsResponse(revisions=map(convert.revision, page), next_page_token=token)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """Hide a session, or remove it for good."""
        tenant, caller = await self._caller()
        gone = await self._manager.delete(convert.change(request, tenant, caller), purge=request.purge)
        return pb.DeleteSessionResponse(session=convert.session(gone))

    async def UndeleteSession(self, request: pb.UndeleteSessionRequest, context: Context) -> pb.UndeleteSessionResponse:
        """Bring a hidden session back."""
        tenant, caller = await self._caller()
        back = await self._manager.undelete(convert.change(request, tenant, caller))
        return pb.UndeleteSessionResponse(session=convert.session(back))

    async def WatchSessions(  # type: ignore[override]  # it writes by itself, so that it can be ended while it does
        self, request: pb.WatchSessionsRequest, context: Context
    ) -> None:
        """Stream events."""
        tenant, _ = await self._caller()
        async with self._watcher.watch(watching.wanted(request, tenant), request.resume_token) as deliveries:
            async for delivery in deliveries:
                await context.write(watching.encoded(delivery))

    async def _caller(self) -> tuple[Tenant, Principal]:
        principal = current_call.get().principal
        return await self._manager.tenant(principal.tenant), principal
