"""What runs in a cluster, run by podman: the migration and servers, on one database."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2
from session_service.config import Settings

from .container_engine import Container, ContainerEngine, Finished
from .database import DatabaseUrls, free_port
from .machine import program


class Server:
    """A container that serves."""

    def __init__(self, container: Container, listen: str, ops_listen: str) -> None:
        self._container = container
        self._listen = listen
        self._ops_listen = ops_listen

    def wait_until_serving(self, seconds: float = 30) -> None:
        """Wait for SERVING as clients see it."""
        with grpc.insecure_channel(self._listen) as channel:
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            states = watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=seconds)
            try:
                for state in states:
                    if state.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.RpcError as error:
                pytest.fail(f"not SERVING: {error}\n{self._container.output()}")

    def call(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call an RPC by grpcurl, which knows the service by reflection only."""
        done = subprocess.run(
            [
                *(program("grpcurl"), "-plaintext", "-max-time", "10", "-d", "@", self._listen),
                f"agent_sessions.v1.SessionService/{method}",
            ],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{method}: {done.stderr}\n{self._container.output()}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def http(self, path: str) -> tuple[int, str]:
        """Ask the HTTP port for operations."""
        try:
            with urlopen(f"http://{self._ops_listen}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refused:
            return refused.code, ""

    def stop(self) -> Finished:
        """Send SIGTERM and wait for the end."""
        self._container.terminate()
        return self._container.wait(Settings().drain_timeout)


class Deployment:
    """The image on one database: its migration, and servers."""

    def __init__(self, engine: ContainerEngine, image: str, database: DatabaseUrls) -> None:
        self.engine = engine
        self.image = image
        self.database = database

    def migrate(self) -> Finished:
        """Do what the Job does."""
        environment = {"SESSION_SERVICE_DATABASE_URL": self.database.owner}
        return self.engine.run(self.image, "migrate", environment=environment)

    def environment(self) -> dict[str, str]:
        """Return the settings of a server, on free ports of the loopback interface."""
        return {
            "SESSION_SERVICE_LISTEN": f"127.0.0.1:{free_port()}",
            "SESSION_SERVICE_OPS_LISTEN": f"127.0.0.1:{free_port()}",
            "SESSION_SERVICE_DATABASE_URL": self.database.server,
        }

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """Run a server while the block runs."""
        environment = self.environment()
        with self.engine.container(self.image, environment=environment) as container:
            yield Server(container, environment["SESSION_SERVICE_LISTEN"], environment["SESSION_SERVICE_OPS_LISTEN"])
