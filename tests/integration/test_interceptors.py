"""Every kind and style of handler behind the real layers, over a real connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
import structlog
from agent_sessions.v1.session_service_pb2 import GetSessionRequest, GetSessionResponse
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from session_service.api.interceptors import layers, observation
from session_service.api.interceptors.call import Call, Context, current_call
from session_service.api.interceptors.pipeline import Pipeline
from session_service.metrics import Metrics
from session_service.sessions.errors import DatabaseUnavailable, InvalidField

EOF: Any = grpc.aio.EOF
SERVICE = "tests.Probe"
LIMIT = 1024


def answer_to(request: GetSessionRequest) -> GetSessionResponse:
    """Do what the request's session_name asks for; else answer with its agent_id."""
    match request.session_name:
        case "invalid":
            raise InvalidField("agent_id", "is not liked", request.agent_id)
        case "unavailable":
            raise DatabaseUnavailable("no database")
        case "bug":
            raise ZeroDivisionError("SELECT secret")
        case "stray cancel":
            raise asyncio.CancelledError
        case "slow query":
            raise TimeoutError("driver")
    response = GetSessionResponse()
    response.session.agent_id = request.agent_id
    return response


class Probe:
    """One handler of each kind and style."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.ended: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def _maybe_wait(self, request: GetSessionRequest) -> None:
        if request.session_name != "wait":
            return
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            self.ended.put_nowait(error)
            raise

    async def unary(self, request: GetSessionRequest, _: Context) -> GetSessionResponse:
        await self._maybe_wait(request)
        return answer_to(request)

    async def gather(self, requests: AsyncIterator[GetSessionRequest], _: Context) -> GetSessionResponse:
        return [answer_to(request) async for request in requests][-1]

    async def spread(self, request: GetSessionRequest, _: Context) -> AsyncIterator[GetSessionResponse]:
        await self._maybe_wait(request)
        for _count in range(3):
            yield answer_to(request)

    async def spread_writing(self, request: GetSessionRequest, context: Context) -> None:
        await self._maybe_wait(request)
        for _count in range(3):
            await context.write(answer_to(request))

    async def echo(self, requests: AsyncIterator[GetSessionRequest], _: Context) -> AsyncIterator[GetSessionResponse]:
        async for request in requests:
            await self._maybe_wait(request)
            yield answer_to(request)

    async def echo_reading(self, _: Any, context: Context) -> None:
        while (request := await context.read()) is not EOF:
            await self._maybe_wait(request)
            await context.write(answer_to(request))

    async def gather_reading(self, _: Any, context: Context) -> GetSessionResponse:
        last = GetSessionResponse()
        while (request := await context.read()) is not EOF:
            last = answer_to(request)
        return last

    async def own_abort(self, _: GetSessionRequest, context: Context) -> GetSessionResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "mine")
        raise AssertionError

    async def whoami(self, _: GetSessionRequest, __: Context) -> GetSessionResponse:
        response = GetSessionResponse()
        response.session.user_id = current_call.get().principal.tenant
        return response

    def handlers(self) -> dict[str, Any]:
        kinds: dict[str, Callable[..., Any]] = {
            "unary": grpc.unary_unary_rpc_method_handler,
            "own_abort": grpc.unary_unary_rpc_method_handler,
            "whoami": grpc.unary_unary_rpc_method_handler,
            "gather": grpc.stream_unary_rpc_method_handler,
            "gather_reading": grpc.stream_unary_rpc_method_handler,
            "spread": grpc.unary_stream_rpc_method_handler,
            "spread_writing": grpc.unary_stream_rpc_method_handler,
            "echo": grpc.stream_stream_rpc_method_handler,
            "echo_reading": grpc.stream_stream_rpc_method_handler,
        }
        return {
            name: make(getattr(self, name), GetSessionRequest.FromString, GetSessionResponse.SerializeToString)
            for name, make in kinds.items()
        }


@dataclass
class Running:
    channel: grpc.aio.Channel
    probe: Probe
    metrics: Metrics
    in_flight: layers.CallsInFlight
    calls: "asyncio.Queue[Call]" = field(default_factory=asyncio.Queue)
    """Calls that have ended, with everything known about them."""

    def call(self, method: str, *requests: Any, timeout: float | None = 20, **options: Any) -> Any:
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        streaming_in = method.startswith(("gather", "echo"))
        streaming_out = method.startswith(("spread", "echo"))
        make = {
            (False, False): self.channel.unary_unary,
            (True, False): self.channel.stream_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }[streaming_in, streaming_out]
        raw = [r if isinstance(r, bytes) else r.SerializeToString() for r in requests]
        sent = iter(raw) if streaming_in else raw[0]
        stub: Any = make(path, None, GetSessionResponse.FromString)
        return stub(sent, timeout=timeout, **options)

    async def answers(self, method: str, *requests: Any, **options: Any) -> list[Any]:
        call = self.call(method, *requests, **options)
        if method.startswith(("spread", "echo")):
            return [answer async for answer in call]
        return [await call]

    async def error(self, method: str, *requests: Any, **options: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.answers(method, *requests, **options)
        return raised.value

    async def ended(self) -> Call:
        return await asyncio.wait_for(self.calls.get(), 10)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest_asyncio.fixture
async def running() -> AsyncIterator[Running]:
    metrics, in_flight, probe = Metrics("test"), layers.CallsInFlight(), Probe()
    calls: asyncio.Queue[Call] = asyncio.Queue()

    class Record:
        def begin(self, call: Call, context: Context) -> None: ...

        def end(self, call: Call) -> None:
            calls.put_nowait(call)

    pipeline = Pipeline(
        (Record(), layers.RequestId(), observation.Log(), observation.CallMetrics(metrics), in_flight),
        (in_flight.admit, layers.authenticate),
        LIMIT,
    )
    server = grpc.aio.server(interceptors=(pipeline,))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, probe.handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(channel, probe, metrics, in_flight, calls)
    await server.stop(None)


def error_info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    # The stubs' type of it cannot be read as the pairs that it holds.
    trailing = dict([*cast("Any", error.trailing_metadata())])
    details = trailing["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = ErrorInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    return info


ALL = ["unary", "gather", "gather_reading", "spread", "spread_writing", "echo", "echo_reading"]
KINDS = {"unary": "unary", "gather": "client_stream", "spread": "server_stream", "echo": "bidi_stream"}
REQUEST = GetSessionRequest(agent_id="a", session_name="s")


@pytest.mark.parametrize("method", ALL)
async def test_every_kind_answers_and_is_counted(running: Running, method: str) -> None:
    answers = await running.answers(method, REQUEST)
    assert {answer.session.agent_id for answer in answers} == {"a"}
    call = await running.ended()
    assert (call.agent_id, call.session_name, call.code) == ("a", "s", grpc.StatusCode.OK)
    assert call.request_bytes == REQUEST.ByteSize()
    assert call.response_bytes == sum(answer.ByteSize() for answer in answers)
    labels = {
        "grpc_type": KINDS[method.partition("_")[0]],
        "grpc_service": SERVICE,
        "grpc_method": method,
    }
    assert running.sample("grpc_server_started_total", **labels) == 1
    assert running.sample("grpc_server_handled_total", **labels, grpc_code="OK") == 1
    assert running.sample("grpc_server_handling_seconds_count", **labels) == 1
    assert running.sample("grpc_server_msg_received_total", **labels) == 1
    assert running.sample("grpc_server_msg_sent_total", **labels) == len(answers)
    assert running.in_flight.count == 0


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        ("invalid", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("unavailable", grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        ("bug", grpc.StatusCode.INTERNAL, "INTERNAL"),
        ("stray cancel", grpc.StatusCode.INTERNAL, "INTERNAL"),
        ("slow query", grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
async def test_every_kind_tells_errors(
    running: Running, method: str, what: str, code: grpc.StatusCode, reason: str
) -> None:
    error = await running.error(method, GetSessionRequest(agent_id="a", session_name=what))
    assert error.code() == code
    assert error_info(error).reason == reason
    assert "secret" not in repr(error)
    assert (await running.ended()).code == code
    assert running.sample("session_service_errors_total", reason=reason) == 1


@pytest.mark.parametrize("method", ALL)
async def test_undecodable_bytes_are_refused(running: Running, method: str) -> None:
    for data in (b"\x0a\xff", b"\x0a\x02\xff\xfe"):  # cut short; not UTF-8
        error = await running.error(method, data)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(error).reason == "UNDECODABLE_REQUEST"


@pytest.mark.parametrize("method", ALL)
async def test_a_large_message_is_refused_with_limit_and_size(running: Running, method: str) -> None:
    request = GetSessionRequest(agent_id="x" * LIMIT)
    error = await running.error(method, request)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_info(error)
    assert info.reason == "MESSAGE_TOO_LARGE"
    assert dict(info.metadata) == {"limit": str(LIMIT), "actual": str(request.ByteSize())}
    assert str(LIMIT) in str(error.details())
    assert str(request.ByteSize()) in str(error.details())


async def test_a_message_of_exactly_the_limit_is_taken(running: Running) -> None:
    request = GetSessionRequest(agent_id="x" * (LIMIT - 3))
    assert request.ByteSize() == LIMIT
    await running.answers("unary", request)


async def test_unknown_methods_are_told_and_share_one_series(running: Running) -> None:
    for method in (f"/{SERVICE}/Nope", "/nobody.Knows/It", "/" + "x" * 3000):
        error = await running.error(method, REQUEST)
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert error_info(error).reason == "METHOD_NOT_FOUND"
        assert not (await running.ended()).known
    started = [
        sample.labels["grpc_method"]
        for metric in running.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "grpc_server_started_total"
    ]
    assert started == ["unknown"]


async def test_a_servicers_own_abort_passes_through(running: Running) -> None:
    error = await running.error("own_abort", REQUEST)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "mine")
    assert (await running.ended()).code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["unary", "spread", "spread_writing", "echo", "echo_reading"])
async def test_a_cancelled_call_ends_its_handler_and_is_counted(running: Running, method: str) -> None:
    call = running.call(method, GetSessionRequest(agent_id="a", session_name="wait"))
    reading = asyncio.ensure_future(call.read() if hasattr(call, "read") else call)
    await asyncio.wait_for(running.probe.waiting.wait(), 10)
    call.cancel()
    assert isinstance(await asyncio.wait_for(running.probe.ended.get(), 10), asyncio.CancelledError)
    assert (await running.ended()).code == grpc.StatusCode.CANCELLED
    assert running.in_flight.count == 0
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("method", ["unary", "spread", "spread_writing", "echo", "echo_reading"])
async def test_a_passed_deadline_ends_the_handler_and_is_counted(running: Running, method: str) -> None:
    request = GetSessionRequest(agent_id="a", session_name="wait")
    error = await running.error(method, request, timeout=0.3)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await running.ended()).code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(await asyncio.wait_for(running.probe.ended.get(), 10), asyncio.CancelledError)


@pytest.mark.parametrize(("given", "kept"), [("r-1", True), ("x" * 129, False), ("a b", False), ("", False)])
async def test_the_request_id_comes_back(running: Running, given: str, kept: bool) -> None:
    for method, request in (("unary", REQUEST), ("unary", GetSessionRequest(session_name="invalid"))):
        call = running.call(method, request, metadata=(("x-request-id", given),))
        await asyncio.gather(call, return_exceptions=True)
        returned = dict([*await call.trailing_metadata()])["x-request-id"]
        assert (returned == given) is kept
        assert returned
        assert (await running.ended()).request_id == returned


async def test_servicers_see_the_caller(running: Running) -> None:
    (answer,) = await running.answers("whoami", REQUEST)
    assert answer.session.user_id == "default"


async def test_one_line_a_call(running: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await running.answers("unary", REQUEST)
        await running.error("unary", GetSessionRequest(agent_id="a\x1b[31m", session_name="invalid"))
        await running.error("unary", GetSessionRequest(session_name="bug"))
        for _ in range(3):  # a line may be written after its caller has the answer
            await running.ended()
    good, bad, bug = lines
    assert (good["log_level"], good["code"], good["agent_id"], good["tenant"]) == ("info", "OK", "a", "default")
    assert good["request_bytes"] == REQUEST.ByteSize()
    assert {"method", "duration_ms", "session_name", "response_bytes", "request_id", "peer"} <= good.keys()
    assert bad["reason"] == "INVALID_FIELD"
    assert bad["agent_id"] == "a\\x1b[31m"
    assert bug["log_level"] == "error"
    assert isinstance(bug["exc_info"], ZeroDivisionError)
