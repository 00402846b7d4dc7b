"""Between protobuf messages and the domain's values; checks what comes in."""

from datetime import UTC, datetime
from typing import TypeVar

from agent_sessions.v1 import session_pb2, session_service_pb2

from session_service.api import fields, pagination, states
from session_service.auth.principal import Principal
from session_service.sessions.errors import InvalidField
from session_service.sessions.model import (
    NO_ENTRIES,
    Change,
    Content,
    Delta,
    Revision,
    RevisionQuery,
    Save,
    Saved,
    Session,
    SessionKey,
    SessionQuery,
    Target,
    Tenant,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Change = (
    session_service_pb2.RestoreSessionRequest
    | session_service_pb2.DownloadSessionRequest
    | session_service_pb2.DeleteSessionRequest
    | session_service_pb2.UndeleteSessionRequest
)
_Restore = session_service_pb2.RestoreSessionRequest | session_service_pb2.DownloadSessionRequest
_Targeted = _Restore | session_service_pb2.GetRevisionRequest
_SaveAnswer = TypeVar("_SaveAnswer", session_service_pb2.SaveSessionResponse, session_service_pb2.UploadSessionResponse)
_Named = _Change | _Targeted | session_service_pb2.GetSessionRequest | session_service_pb2.ListRevisionsRequest


def save(request: session_service_pb2.SaveSessionRequest, tenant: Tenant, caller: Principal, max_messages: int) -> Save:
    """A save of at most so many messages. Uses `request` up."""
    agent_id, session_name = request.agent_id, request.session_name
    client_id, user_id = request.client_id, request.user_id
    fields.check_names(agent_id, session_name, client_id, user_id)
    expected = labels = None
    if request.HasField("expected_revision"):
        expected = fields.not_negative("expected_revision", request.expected_revision)
    if request.HasField("labels"):
        labels = fields.entries("labels", request.labels.entries)
    checkpoint_id, metadata = request.checkpoint_id, request.metadata
    # By position: a NamedTuple takes several times as long to make by names.
    return Save(
        tenant,
        agent_id,
        session_name,
        _content(request, agent_id, max_messages),
        caller.name,
        expected,
        fields.request_id(request.request_id),
        client_id,
        user_id,
        labels,
        fields.optional_name("checkpoint_id", checkpoint_id) if checkpoint_id else "",
        fields.entries("metadata", metadata) if metadata else NO_ENTRIES,
        request.self_contained,
    )


def _content(request: session_service_pb2.SaveSessionRequest, agent_id: str, max_messages: int) -> Content | Delta:
    if request.HasField("delta"):
        return states.take_delta_apart(request.delta, max_messages)
    if request.HasField("snapshot"):
        return states.take_apart(request.snapshot, agent_id, max_messages)
    raise InvalidField("snapshot", "is required, or a delta")


def key(request: _Named, tenant: Tenant) -> SessionKey:
    """The session that a request names."""
    agent_id = fields.name("agent_id", request.agent_id)
    return SessionKey(tenant, agent_id, fields.name("session_name", request.session_name))


def change(request: _Change, tenant: Tenant, caller: Principal) -> Change:
    """A restore, delete or undelete."""
    expected: int | None = None
    if not isinstance(request, _Restore) and request.HasField("expected_revision"):
        expected = fields.at_least("expected_revision", request.expected_revision, 1)
    return Change(
        key=key(request, tenant),
        actor=caller.name,
        request_id=fields.request_id(request.request_id),
        client_id=fields.optional_name("client_id", request.client_id),
        expected_revision=expected,
    )


def target(request: _Targeted) -> Target:
    """The revision that a request names."""
    checkpoint_id = fields.optional_name("checkpoint_id", request.checkpoint_id)
    return Target(fields.not_negative("revision", request.revision) or None, checkpoint_id)


def message_limit(request: _Targeted) -> int:
    """How many messages to return; 0: all."""
    return fields.not_negative("message_limit", request.message_limit)


def session_query(request: session_service_pb2.ListSessionsRequest, tenant: Tenant) -> SessionQuery:
    """A page of sessions."""
    order, descending = pagination.session_order(request.order_by)
    return SessionQuery(
        tenant=tenant,
        agent_id=fields.optional_name("agent_id", request.agent_id),
        page_size=fields.page_size(request.page_size),
        after=pagination.session_position(request, tenant, order),
        order=order,
        descending=descending,
        user_id=fields.optional_name("user_id", request.user_id),
        labels=fields.entries("labels", request.labels),
        name_prefix=fields.optional_name("name_prefix", request.name_prefix),
        show_deleted=request.show_deleted,
    )


def revision_query(request: session_service_pb2.ListRevisionsRequest, tenant: Tenant) -> RevisionQuery:
    """A page of revisions."""
    return RevisionQuery(
        key=key(request, tenant),
        page_size=fields.page_size(request.page_size),
        after=pagination.revision_position(request, tenant),
        descending=pagination.revisions_descending(request.order_by),
        metadata=fields.entries("metadata", request.metadata),
    )


def saved(done: Saved, answer: _SaveAnswer) -> _SaveAnswer:
    """Fills in the answer to a save, where it is: one made elsewhere would be copied by way of its bytes."""
    _fill_session(answer.session, done.session)
    _fill_revision(answer.revision, done.revision)
    if done.replayed:
        answer.replayed = True
    return answer


def session(stored: Session) -> session_pb2.Session:
    """A session."""
    made = session_pb2.Session()
    _fill_session(made, stored)
    return made


def revision(stored: Revision) -> session_pb2.Revision:
    """A revision."""
    made = session_pb2.Revision()
    _fill_revision(made, stored)
    return made


def _fill_session(made: session_pb2.Session, stored: Session) -> None:
    made.agent_id = stored.agent_id
    made.session_name = stored.session_name
    made.uid = str(stored.uid or "")
    made.head_revision = stored.head_revision
    made.message_count = stored.message_count
    made.size_bytes = stored.size_bytes
    if stored.user_id:
        made.user_id = stored.user_id
    if stored.labels:
        made.labels.update(stored.labels)
    fill_time(made, "create_time", stored.create_time)
    fill_time(made, "update_time", stored.update_time)
    fill_time(made, "last_restore_time", stored.last_restore_time)
    fill_time(made, "delete_time", stored.delete_time)


def _fill_revision(made: session_pb2.Revision, stored: Revision) -> None:
    made.revision = stored.revision
    made.etag = stored.etag
    made.parent_revision = stored.parent_revision
    made.message_count = stored.message_count
    made.size_bytes = stored.size_bytes
    if stored.checkpoint_id:
        made.checkpoint_id = stored.checkpoint_id
    if stored.metadata:
        made.metadata.update(stored.metadata)
    fill_time(made, "create_time", stored.create_time)


def fill_time(
    made: session_pb2.Session | session_pb2.Revision | session_pb2.SessionEvent, field: str, moment: datetime | None
) -> None:
    """Set a Timestamp; None leaves it absent."""
    if moment is None:
        return
    time = getattr(made, field)
    time.SetInParent()  # present, also where all its numbers are 0
    since = moment - _EPOCH
    time.seconds = since.days * 86_400 + since.seconds
    time.nanos = since.microseconds * 1000
