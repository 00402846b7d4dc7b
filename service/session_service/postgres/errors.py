"""From driver errors to the domain's, by SQLSTATE; driver text goes no further than the log."""

from contextlib import AbstractContextManager
from types import TracebackType

import asyncpg

from session_service.sessions.errors import Contention, CorruptData, DatabaseUnavailable, SessionServiceError

CONNECTION_ERRORS = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)
"""The connection is gone or was refused; whether the statement took effect is not known."""

# 28, 3D, 55000: it accepts no connection from this server, for example with a password that has changed.
_UNAVAILABLE_STATES = ("08", "28", "3D", "53", "55000", "57", "25006")
_CONTENTION_STATES = ("40", "55P03")
_CORRUPTION_STATES = ("XX001", "XX002")


def is_connection_lost(error: BaseException) -> bool:
    """Whether to drop the connection and, if the statement may be repeated, to repeat it."""
    if isinstance(error, asyncpg.QueryCanceledError | TimeoutError):
        return False
    return isinstance(error, CONNECTION_ERRORS)


def to_domain(error: BaseException) -> SessionServiceError | None:
    """The domain's error for a driver's; None for one that nobody foresaw."""
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("the database did not answer in time")
    if state.startswith(_CONTENTION_STATES):
        return Contention("the session is being changed by others; try again")
    if state.startswith(_CORRUPTION_STATES):
        return CorruptData("stored data is damaged")
    if state.startswith("57014"):
        return DatabaseUnavailable("the database did not answer in time")
    if state.startswith(_UNAVAILABLE_STATES) or isinstance(error, CONNECTION_ERRORS):
        return DatabaseUnavailable("the database cannot be reached")
    return None


class _Translation:
    """A context manager, written out: every save enters it."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, SessionServiceError):
            known = to_domain(error)
            if known is not None:
                raise known from error


_TRANSLATION = _Translation()


def translated() -> AbstractContextManager[None]:
    """Raises the domain's errors in place of the driver's."""
    return _TRANSLATION
