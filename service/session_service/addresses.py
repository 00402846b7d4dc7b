"""Network addresses as flags write them: HOST:PORT, [IPV6]:PORT, unix:PATH."""

import ipaddress
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host and a port, or the path of a Unix socket."""

    host: str
    """A name or a literal, without brackets; empty for a Unix socket."""
    port: int
    """0 lets the system choose; also 0 for a Unix socket."""
    path: str = ""
    """Path of a Unix socket; empty for a network address."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address; ValueError tells the rule that it breaks."""
        if text.startswith("unix:"):
            return cls("", 0, _socket_path(text))
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError("the port must be a number from 0 to 65535")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def with_port(self, port: int) -> "Address":
        """Return the same address with the port that the system chose."""
        return Address(self.host, self.port if self.path else port, self.path)

    def is_loopback(self) -> bool:
        """Tell whether only programs of this machine can reach it. Looks names up."""
        if self.path or self.host == "localhost":
            return True
        try:
            return _is_loopback_literal(self.host)
        except ValueError:
            return _resolves_to_loopback(self.host)


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path:
        raise ValueError("unix: needs a path")
    return path


def _is_loopback_literal(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _resolves_to_loopback(name: str) -> bool:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback_literal(str(info[4][0])) for info in found)
