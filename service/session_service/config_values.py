"""How the text of a setting is read. Each reader raises ValueError with the rule that is broken."""

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from session_service.addresses import Address

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_SECRET = re.compile("pass|secret|token", re.IGNORECASE)


def address(text: str) -> str:
    """Read HOST:PORT, [IPV6]:PORT or unix:PATH."""
    return str(Address.parse(text))


def network_address(text: str) -> str:
    """Read HOST:PORT or [IPV6]:PORT."""
    parsed = Address.parse(text)
    if parsed.path:
        raise ValueError("must be HOST:PORT or [IPV6]:PORT")
    return str(parsed)


def is_loopback(text: str) -> bool:
    """Tell whether only programs of this machine can reach an address."""
    return Address.parse(text).is_loopback()


def boolean(text: str) -> bool:
    """Read true or false, in the usual spellings."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("must be true or false")


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a reader of whole numbers in a range."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not lowest <= int(text) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return int(text)

    return read


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """Return a reader of durations in a range."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ValueError(f"must be a number of seconds from {lowest:g} to {highest:g}")
        return value

    return read


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return text

    return read


def identifier(text: str) -> str:
    """Read the name of a PostgreSQL role."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise ValueError("must be 1 to 63 of a-z, 0-9 and _, and not begin with a digit")
    return text


def path(text: str) -> Path:
    """Read a path; ~ is the home directory. Made absolute."""
    return Path(text).expanduser().absolute()


def database_url(text: str) -> str:
    """Read the URL of a PostgreSQL database."""
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql:// or postgres://")
    parts = urlsplit(text)
    if _is_torn(parts):
        raise ValueError("must have / ? # and @ in user and password written as %2F %3F %23 %40")
    for host in parts.netloc.rpartition("@")[2].split(","):
        if not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?", host):
            raise ValueError("must name hosts as HOST, HOST:PORT or [IPV6]:PORT")
    return text


def without_password(url: str) -> str:
    """Return a database URL as it may be shown: secrets as ***, or nothing of it if it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if parts.scheme not in {"postgresql", "postgres"} or not url.startswith(f"{parts.scheme}://") or _is_torn(parts):
        return "***"
    user, at, host = parts.netloc.rpartition("@")
    shown = user.split(":", 1)[0] + (":***" if ":" in user else "")
    query = [(k, "***" if _SECRET.search(k) else v) for k, v in parse_qsl(parts.query)]
    return urlunsplit((parts.scheme, f"{shown}{at}{host}", parts.path, urlencode(query, safe="*/"), ""))


def _is_torn(parts: SplitResult) -> bool:
    """Tell whether an unescaped character in the password ended the host part early: the rest holds the @, then."""
    return bool(parts.fragment) or "@" in parts.path or "@" in parts.query


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the embedded database lives if nobody says where: the XDG state directory."""
    state = environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state) / "agent-session-service"
