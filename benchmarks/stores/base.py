"""What every store can do here."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from benchmarks.corpus import Conversation

CONNECTIONS = 10
"""To PostgreSQL, for every store whose number of connections can be set."""


class Unavailable(Exception):
    """This store cannot be measured here. The message tells why."""


@dataclass(frozen=True)
class Access:
    """Where a store finds its data."""

    dsn: str
    """URL of a PostgreSQL database of its own, as the owner."""
    target: str = ""
    """HOST:PORT of the service on that database; only for stores that need it."""


@dataclass(frozen=True)
class Description:
    """What a store is, for the report."""

    title: str
    version: str
    setup: str
    """How it is used here, which is how its documentation says."""
    keeps: str
    """What a save leaves behind."""


class Store(Protocol):
    """A place that keeps conversations. One instance per process."""

    def describe(self) -> Description:
        """Tell what this is; needs no database."""

    async def prepare(self, dsn: str) -> None:
        """Make the tables, once per database, as the store's documentation says."""

    async def open(self, access: Access) -> None:
        """Connect."""

    async def save(self, conversation: Conversation, index: int) -> None:
        """Make everything up to and including messages[index] durable; only messages[index] is new."""

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Read the newest state back as objects; equal to the values of the messages saved last."""

    async def close(self) -> None:
        """Disconnect."""


def package_versions(*packages: str) -> str:
    """Return names and installed versions, for descriptions."""
    return ", ".join(f"{package} {version(package)}" for package in packages)


def sqlalchemy_url(dsn: str) -> str:
    """Return the URL as SQLAlchemy wants it, with the asyncpg driver."""
    return dsn.replace("postgresql://", "postgresql+asyncpg://", 1)


def key(conversation: Conversation) -> str:
    """Return one name for (agent_id, session_name), for stores that know only one."""
    return f"{conversation.agent_id}/{conversation.session_name}"
