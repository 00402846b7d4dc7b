"""WatchSessions: what a request asks for, and the messages of its stream."""

from typing import cast

from agent_sessions.v1 import session_pb2, session_service_pb2

from session_service.api import convert, fields
from session_service.sessions.errors import InvalidField
from session_service.sessions.events import Delivery, Event, EventFilter, EventType
from session_service.sessions.model import Tenant

MAX_TYPES = 64
"""Entries of a request: more than there are types, few enough to be looked at one by one."""
_TYPES = {int(kind): kind for kind in EventType}
_DEFAULT = frozenset({EventType.RESTORED})


def wanted(request: session_service_pb2.WatchSessionsRequest, tenant: Tenant) -> EventFilter:
    """Which events a request asks for."""
    agent_id = fields.optional_name("agent_id", request.agent_id)
    session_name = fields.optional_name("session_name", request.session_name)
    if session_name and not agent_id:
        raise InvalidField("agent_id", "is required with session_name")
    if len(request.types) > MAX_TYPES:
        raise InvalidField("types", f"at most {MAX_TYPES} entries", len(request.types))
    types = frozenset(fields.known(f"types[{index}]", number, _TYPES) for index, number in enumerate(request.types))
    return EventFilter(types or _DEFAULT, tenant, agent_id, session_name)


def encoded(delivery: Delivery) -> bytes:
    """A message of a watch in wire form; made once for all that watch the same."""
    if delivery.wire is None:
        delivery.wire = _message(delivery).SerializeToString()
    return delivery.wire


def _message(delivery: Delivery) -> session_service_pb2.WatchSessionsResponse:
    message = session_service_pb2.WatchSessionsResponse(resume_token=delivery.resume_token)
    if delivery.event is not None:
        _fill(message.event, delivery.event)
    elif delivery.is_first:
        message.created.SetInParent()
    else:
        message.bookmark.SetInParent()
    return message


def _fill(message: session_pb2.SessionEvent, event: Event) -> None:
    message.event_id = str(event.event_id)
    message.type = cast("session_pb2.EventType", event.type)
    message.agent_id = event.agent_id
    message.session_name = event.session_name
    message.revision = event.revision
    convert.fill_time(message, "create_time", event.create_time)
    message.actor = event.actor
    message.client_id = event.client_id
    message.request_id = str(event.request_id)
