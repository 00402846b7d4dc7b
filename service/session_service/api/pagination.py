"""Page tokens and orders.

A token holds the sort key of the page's last row, and a keyed digest over it,
the tenant and the list's other arguments: a token of another list, another
tenant or another hand is refused.
"""

import base64
import binascii
import json
from datetime import datetime

from agent_sessions.v1.session_service_pb2 import ListRevisionsRequest, ListSessionsRequest

from session_service.sessions import digests
from session_service.sessions.errors import InvalidField, InvalidPageToken
from session_service.sessions.model import Revision, Session, SessionOrder, Tenant

_List = ListSessionsRequest | ListRevisionsRequest

_ORDERS = {order.value: order for order in SessionOrder} | {"session_name": SessionOrder.NAME}


def session_order(order_by: str) -> tuple[SessionOrder, bool]:
    """What to sort by, and whether newest or last comes first."""
    field, descending = _parse(order_by or "create_time desc")
    if field not in _ORDERS:
        raise InvalidField("order_by", 'must be "create_time", "update_time" or "name", or one with " desc"', order_by)
    return _ORDERS[field], descending


def revisions_descending(order_by: str) -> bool:
    """Whether the newest revision comes first."""
    field, descending = _parse(order_by or "revision desc")
    if field != "revision":
        raise InvalidField("order_by", 'must be "revision" or "revision desc"', order_by)
    return descending


def session_position(
    request: ListSessionsRequest, tenant: Tenant, order: SessionOrder
) -> tuple[datetime | str, int] | None:
    """Where the page begins. Raises: InvalidPageToken."""
    place = _open(request, tenant)
    if place is None:
        return None
    sort_key, session_id = place
    return (sort_key if order is SessionOrder.NAME else datetime.fromisoformat(sort_key)), session_id


def revision_position(request: ListRevisionsRequest, tenant: Tenant) -> int | None:
    """Where the page begins. Raises: InvalidPageToken."""
    place = _open(request, tenant)
    return None if place is None else place[1]


def after_session(request: ListSessionsRequest, tenant: Tenant, last: Session) -> str:
    """The token for the page after this row."""
    order, _ = session_order(request.order_by)
    moment = last.create_time if order is SessionOrder.CREATE_TIME else last.update_time
    sort_key = last.session_name if order is SessionOrder.NAME or moment is None else moment.isoformat()
    return _seal(request, tenant, sort_key, last.session_id)


def after_revision(request: ListRevisionsRequest, tenant: Tenant, last: Revision) -> str:
    """The token for the page after this row."""
    return _seal(request, tenant, "", last.revision)


def _parse(order_by: str) -> tuple[str, bool]:
    match order_by.split():
        case [field]:
            return field, False
        case [field, "asc" | "desc" as direction]:
            return field, direction == "desc"
    return "", False


def _seal(request: _List, tenant: Tenant, sort_key: str, number: int) -> str:
    token = json.dumps([sort_key, number, _signature(request, tenant, sort_key, number)])
    return base64.urlsafe_b64encode(token.encode()).decode()


def _open(request: _List, tenant: Tenant) -> tuple[str, int] | None:
    if not request.page_token:
        return None
    try:
        sort_key, number, signature = json.loads(base64.b64decode(request.page_token, b"-_", validate=True))
        genuine = signature == _signature(request, tenant, sort_key, number)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        genuine = False
    if not genuine:
        raise InvalidPageToken(
            "page_token: was not made for this list; start again without one", {"field": "page_token"}
        )
    return sort_key, number


def _signature(request: _List, tenant: Tenant, sort_key: str, number: int) -> str:
    arguments = type(request).FromString(request.SerializeToString())
    arguments.ClearField("page_token")
    arguments.ClearField("page_size")
    content = arguments.SerializeToString(deterministic=True)
    digest = digests.of_page(tenant.digest_secret, (type(request).__name__, content, sort_key, number))
    return digest.hex()
