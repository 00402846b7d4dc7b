import http.client
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families
from session_service.addresses import Address
from session_service.metrics import Metrics
from session_service.ops.http import OpsServer


@dataclass
class Probes:
    alive: bool = True
    ready: bool = True


@dataclass
class Running:
    address: Address
    probes: Probes
    metrics: Metrics

    def request(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read().decode()
        finally:
            connection.close()


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0"])
def ops(request: pytest.FixtureRequest) -> Iterator[Running]:
    probes, metrics = Probes(), Metrics("1.2.3")
    server = OpsServer(
        Address.parse(request.param),
        metrics.registry,
        is_alive=lambda: probes.alive,
        is_ready=lambda: probes.ready,
    )
    server.start()
    yield Running(server.address, probes, metrics)
    server.stop()


def test_probes_follow_the_server(ops: Running) -> None:
    assert (ops.request("/healthz")[0], ops.request("/readyz")[0]) == (200, 200)
    ops.probes.ready = False
    assert (ops.request("/healthz")[0], ops.request("/readyz?x=1")[0]) == (200, 503)
    ops.probes.alive = False
    assert ops.request("/healthz")[0] == 503


def test_metrics_are_served_in_prometheus_format(ops: Running) -> None:
    ops.metrics.saved("delta", "append", 3, 100, 40)
    status, content_type, body = ops.request("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["session_service_saves_total", ("kind", "delta"), ("placement", "append")] == 1
    assert samples["session_service_stored_bytes_total",] == 40
    assert any(name[0] == "session_service_build_info" and ("version", "1.2.3") in name for name in samples)


def test_everything_else_is_not_found(ops: Running) -> None:
    for path in ("/", "/metrics/", "/healthz/x", "/../etc/passwd"):
        assert ops.request(path)[0] == 404
    assert ops.request("/metrics", "POST")[0] == 501


def test_head_has_no_body(ops: Running) -> None:
    assert ops.request("/healthz", "HEAD")[::2] == (200, "")


def test_a_taken_port_is_an_error(ops: Running) -> None:
    with pytest.raises(OSError, match="in use"):
        OpsServer(ops.address, ops.metrics.registry, is_alive=lambda: True, is_ready=lambda: True)
