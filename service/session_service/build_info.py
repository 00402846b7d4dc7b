"""Which build of the service this is."""

from importlib import metadata


def version() -> str:
    """Return the installed distribution's version; `unknown` when run from a source tree."""
    try:
        return metadata.version("agent-session-service")
    except metadata.PackageNotFoundError:
        return "unknown"
