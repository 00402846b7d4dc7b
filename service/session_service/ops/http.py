"""Operational HTTP: /metrics, /healthz (alive), /readyz (ready for calls).

In threads of its own, so that it answers also while the event loop is stuck:
that is what /healthz is for.
"""

import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from session_service.addresses import Address

_Answer = tuple[HTTPStatus, str, bytes]


class OpsServer:
    """The HTTP server, from construction (which binds: OSError) until `stop`."""

    def __init__(
        self,
        address: Address,
        registry: CollectorRegistry,
        *,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._probes = {"/healthz": is_alive, "/readyz": is_ready}
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._server = _Server((address.host, address.port), family, self._answer)
        self.address = address.with_port(self._server.server_address[1])
        """Where it listens, with the real port."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="ops-http", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, accept: str) -> _Answer:
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return HTTPStatus.OK, content_type, encode(self._registry)
        if (probe := self._probes.get(path)) is None:
            return _text(HTTPStatus.NOT_FOUND, "not found: there are /metrics, /healthz and /readyz")
        return _text(HTTPStatus.OK, "ok") if probe() else _text(HTTPStatus.SERVICE_UNAVAILABLE, "no")


def _text(status: HTTPStatus, text: str) -> _Answer:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], family: socket.AddressFamily, answer: Callable[[str, str], _Answer]
    ) -> None:
        self.address_family = family
        self.answer = answer
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    """Seconds for a client to send its request."""
    server: _Server
    server_version = "agent-session-service"
    sys_version = ""

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def _respond(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        status, content_type, body = self.server.answer(path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every second."""
