"""Between protobuf messages and the domain's values; checks what comes in."""

from datetime import UTC, datetime
from typing import Any

from agent_sessions.v1 import session_pb2, session_service_pb2

from session_service.api import fields, pagination, states
from session_service.auth.principal import Principal
from session_service.sessions.errors import InvalidField
from session_service.sessions.model import (
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
    | session_service_pb2.DeleteSessionRequest
    | session_service_pb2.UndeleteSessionRequest
)
_Targeted = session_service_pb2.RestoreSessionRequest | session_service_pb2.GetRevisionRequest
_Named = _Change | _Targeted | session_service_pb2.GetSessionRequest | session_service_pb2.ListRevisionsRequest


def check_message_count(request: session_service_pb2.SaveSessionRequest, limit: int) -> None:
    """Refuse a save of too many messages before any of them is looked at. Raises: InvalidField."""
    for field, messages in (
        ("snapshot.message_history", request.snapshot.message_history),
        ("delta.appended_messages", request.delta.appended_messages),
    ):
        if len(messages) > limit:
            raise InvalidField(field, f"at most {limit} messages in one save", len(messages))


def save(request: session_service_pb2.SaveSessionRequest, tenant: Tenant, caller: Principal) -> Save:
    """A save. Uses `request` up."""
    agent_id = fields.name("agent_id", request.agent_id)
    expected = request.expected_revision if request.HasField("expected_revision") else None
    labels = request.labels.entries if request.HasField("labels") else None
    return Save(
        tenant=tenant,
        agent_id=agent_id,
        session_name=fields.optional_name("session_name", request.session_name),
        actor=caller.name,
        expected_revision=None if expected is None else fields.not_negative("expected_revision", expected),
        request_id=fields.request_id(request.request_id),
        client_id=fields.optional_name("client_id", request.client_id),
        user_id=fields.optional_name("user_id", request.user_id),
        labels=None if labels is None else fields.entries("labels", labels),
        checkpoint_id=fields.optional_name("checkpoint_id", request.checkpoint_id),
        metadata=fields.entries("metadata", request.metadata),
        self_contained=request.self_contained,
        content=_content(request, agent_id),
    )


def _content(request: session_service_pb2.SaveSessionRequest, agent_id: str) -> Content | Delta:
    match request.WhichOneof("content"):
        case "snapshot":
            return states.take_apart(request.snapshot, agent_id)
        case "delta":
            return states.take_delta_apart(request.delta)
    raise InvalidField("snapshot", "is required, or a delta")


def key(request: _Named, tenant: Tenant) -> SessionKey:
    """The session that a request names."""
    agent_id = fields.name("agent_id", request.agent_id)
    return SessionKey(tenant, agent_id, fields.name("session_name", request.session_name))


def change(request: _Change, tenant: Tenant, caller: Principal) -> Change:
    """A restore, delete or undelete."""
    expected: int | None = None
    if not isinstance(request, session_service_pb2.RestoreSessionRequest) and request.HasField("expected_revision"):
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


def saved(done: Saved) -> session_service_pb2.SaveSessionResponse:
    """The answer to a save."""
    return session_service_pb2.SaveSessionResponse(
        session=_session(done.session), revision=_revision(done.revision), replayed=done.replayed
    )


def session(stored: Session) -> session_pb2.Session:
    """A session."""
    return session_pb2.Session(**_session(stored))


def revision(stored: Revision) -> session_pb2.Revision:
    """A revision."""
    return session_pb2.Revision(**_revision(stored))


# As dictionaries: a message that is given to another one's constructor is copied
# by way of its bytes, a dictionary becomes the message where it belongs.


def _session(stored: Session) -> dict[str, Any]:
    return {
        "agent_id": stored.agent_id,
        "session_name": stored.session_name,
        "uid": str(stored.uid or ""),
        "user_id": stored.user_id,
        "head_revision": stored.head_revision,
        "message_count": stored.message_count,
        "size_bytes": stored.size_bytes,
        "labels": stored.labels,
        "create_time": _time(stored.create_time),
        "update_time": _time(stored.update_time),
        "last_restore_time": _time(stored.last_restore_time),
        "delete_time": _time(stored.delete_time),
    }


def _revision(stored: Revision) -> dict[str, Any]:
    return {
        "revision": stored.revision,
        "etag": stored.etag,
        "parent_revision": stored.parent_revision,
        "checkpoint_id": stored.checkpoint_id,
        "message_count": stored.message_count,
        "size_bytes": stored.size_bytes,
        "create_time": _time(stored.create_time),
        "metadata": stored.metadata,
    }


def _time(moment: datetime | None) -> dict[str, int] | None:
    if moment is None:
        return None
    since = moment - _EPOCH
    return {"seconds": since.days * 86_400 + since.seconds, "nanos": since.microseconds * 1000}
