"""The caller of an RPC, as the rest of the service sees it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and for which tenant. Everything the caller does is scoped by the tenant."""

    tenant: str
    """The tenant's name."""
    name: str
    """The caller's own name; it becomes the `actor` of events."""


ANONYMOUS = Principal(tenant="default", name="anonymous")
"""Every caller, while authentication is off."""
