"""From the status of a result row to the domain's error."""

import asyncpg

from session_service.postgres.operations import ChangeStatus, SaveStatus
from session_service.postgres.states import session_not_found
from session_service.sessions.errors import (
    BaseRevisionNotFound,
    CheckpointIdExists,
    Contention,
    RequestIdReused,
    RevisionMismatch,
    SessionDeleted,
    SessionNotDeleted,
    SessionServiceError,
    UserIdMismatch,
)
from session_service.sessions.model import Change, Delta, Save, SessionKey


def save_refusal(status: SaveStatus, row: asyncpg.Record, save: Save) -> SessionServiceError:
    """Why a save was refused."""
    key = SessionKey(save.tenant, save.agent_id, save.session_name)
    match status:
        case SaveStatus.REUSED:
            return _reused(key)
        case SaveStatus.DELETED:
            return _deleted(key)
        case SaveStatus.REVISION_MISMATCH:
            return _mismatch(key, save.expected_revision, row["head_revision"] or 0)
        case SaveStatus.USER_MISMATCH:
            return UserIdMismatch(f"{key} belongs to another user_id than {save.user_id!r}", str(key))
        case SaveStatus.CHECKPOINT_EXISTS:
            return CheckpointIdExists(f"{key} has a revision with checkpoint_id {save.checkpoint_id!r} already")
        case SaveStatus.BASE_NOT_FOUND:
            return _base_not_found(key, save, row["head_revision"] or 0)
        case _:
            return _contention(key)


def change_refusal(status: ChangeStatus, row: asyncpg.Record, key: SessionKey, change: Change) -> SessionServiceError:
    """Why a restore, delete or undelete was refused."""
    match status:
        case ChangeStatus.REUSED:
            return _reused(key)
        case ChangeStatus.DELETED:
            return _deleted(key)
        case ChangeStatus.REVISION_MISMATCH:
            return _mismatch(key, change.expected_revision, row["head_revision"])
        case ChangeStatus.NOT_DELETED:
            return SessionNotDeleted(f"{key} is not deleted")
        case ChangeStatus.NOT_FOUND:
            return session_not_found(key)
        case _:
            return _contention(key)


def _reused(key: SessionKey) -> SessionServiceError:
    return RequestIdReused(f"request_id: was used for another request on {key}", {"field": "request_id"})


def _deleted(key: SessionKey) -> SessionServiceError:
    return SessionDeleted(f"{key} is deleted; undelete it, or purge it to free the name", str(key))


def _mismatch(key: SessionKey, expected: int | None, current: int) -> SessionServiceError:
    return RevisionMismatch(
        f"{key} is at revision {current}, not at the expected {expected}",
        {"expected_revision": str(expected), "current_revision": str(current)},
    )


def _base_not_found(key: SessionKey, save: Save, current: int) -> SessionServiceError:
    base = save.content.base_revision if isinstance(save.content, Delta) else 0
    return BaseRevisionNotFound(
        f"{key} has no revision {base} with that etag to base a delta on; send a snapshot",
        str(key),
        {"base_revision": str(base), "current_revision": str(current)},
    )


def _contention(key: SessionKey) -> SessionServiceError:
    return Contention(f"{key} is being changed by others; try again")
