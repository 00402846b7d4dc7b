"""The blocking client: the asyncio client's behaviour, without an event loop of one's own."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from agent_sessions import (
    ClientClosed,
    CursorExpired,
    DeadlineExceeded,
    SessionNotFound,
    State,
    StateCodec,
    SyncSessionClient,
)
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Failure, ScriptedServer, WatchCall, expired, info, retry_after, saved

STATE = State(messages=["hello"])
UNAVAILABLE = Failure(StatusCode.UNAVAILABLE)


@pytest.fixture
def blocking_server() -> Iterator[ScriptedServer]:
    """Run the scripted server in an event loop of its own, as the client's caller has none."""
    started: Future[ScriptedServer] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        server = ScriptedServer(script=[saved()])
        await server.start()
        started.set_result(server)
        await stop.wait()
        await server.stop()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    yield started.result(10)
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def threads_of_clients() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "agent-sessions"]


def test_calls_and_retries(blocking_server: ScriptedServer) -> None:
    blocking_server.script = [UNAVAILABLE, saved(3)]
    with SyncSessionClient(blocking_server.target, retry=FAST, client_id="w") as client:
        revision: pb.Revision = client.save("a", "s", STATE, expected_revision=2).revision
    assert revision.revision == 3
    first, second = blocking_server.requests
    assert first == second
    assert (first.client_id, first.expected_revision) == ("w", 2)


def test_errors_are_the_same(blocking_server: ScriptedServer) -> None:
    blocking_server.script = [Failure(StatusCode.NOT_FOUND, "no", info("SESSION_NOT_FOUND"))]
    with SyncSessionClient(blocking_server.target) as client, pytest.raises(SessionNotFound):
        client.restore("a", "s")


def test_lists_are_lazy(blocking_server: ScriptedServer) -> None:
    token = "t1"  # noqa: S105 – of a page
    blocking_server.script = [
        messages.ListSessionsResponse(sessions=[pb.Session(session_name="1")], next_page_token=token),
        messages.ListSessionsResponse(sessions=[pb.Session(session_name="2")]),
    ]
    with SyncSessionClient(blocking_server.target) as client:
        sessions = iter(client.list_sessions("a", page_size=1))
        assert blocking_server.requests == []
        assert next(sessions).session_name == "1"
        assert len(blocking_server.requests) == 1
        assert [session.session_name for session in sessions] == ["2"]
        assert [session.session_name for session in client.list_sessions("a").page(token).items] == ["2"]
    assert [request.page_token for request in blocking_server.requests] == ["", token, token]


def test_timeouts(blocking_server: ScriptedServer) -> None:
    blocking_server.script = [blocking_server.hang]
    with SyncSessionClient(blocking_server.target) as client, pytest.raises(DeadlineExceeded):
        client.get_session("a", "s", timeout=0.2)


def test_several_threads_at_once(blocking_server: ScriptedServer) -> None:
    with SyncSessionClient(blocking_server.target) as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: client.save("a", f"s{n}", STATE), range(40)))
    assert len(results) == len(blocking_server.requests) == 40


def test_closing_ends_the_thread_and_further_calls() -> None:
    client = SyncSessionClient("127.0.0.1:1")
    assert len(threads_of_clients()) == 1
    client.close()
    client.close()
    assert threads_of_clients() == []
    with pytest.raises(ClientClosed):
        client.get_session("a", "s")


def test_closing_ends_a_call_of_another_thread(blocking_server: ScriptedServer) -> None:
    arrived = threading.Event()

    async def hang(request: Any, context: Any) -> Any:
        arrived.set()
        return await blocking_server.hang(request, context)

    blocking_server.script = [hang]
    client = SyncSessionClient(blocking_server.target)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.get_session, "a", "s")
        assert arrived.wait(5)
        client.close()
        with pytest.raises(ClientClosed):
            call.result(5)


def test_closing_ends_a_wait_before_the_next_attempt(blocking_server: ScriptedServer) -> None:
    failed = threading.Event()

    async def fail(request: Any, context: Any) -> Any:
        failed.set()
        failure = Failure(StatusCode.UNAVAILABLE, "later", retry_after(20))
        context.set_trailing_metadata(failure.trailing_metadata())
        await context.abort(failure.code, failure.message)

    blocking_server.script = [fail]
    client = SyncSessionClient(blocking_server.target)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.get_session, "a", "s")
        assert failed.wait(5)
        client.close()
        with pytest.raises(ClientClosed):
            call.result(5)


def test_a_forgotten_client_ends_its_thread(blocking_server: ScriptedServer) -> None:
    SyncSessionClient(blocking_server.target).save("a", "s", STATE)
    gc.collect()
    assert threads_of_clients() == []


def test_ctrl_c_cancels_the_call(blocking_server: ScriptedServer) -> None:
    async def interrupt(request: Any, context: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            return await blocking_server.hang(request, context)
        finally:
            gone.set()

    gone = threading.Event()
    blocking_server.script = [interrupt]
    with SyncSessionClient(blocking_server.target) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get_session("a", "s", timeout=20)
        assert gone.wait(5), "the server still works on a call that nobody waits for"
        blocking_server.script = [messages.GetSessionResponse()]
        client.get_session("a", "s")


def test_a_program_ends_without_closing_its_client() -> None:
    program = (
        "from agent_sessions import SyncSessionClient, DeadlineExceeded\n"
        "client = SyncSessionClient('127.0.0.1:1')\n"
        "try: client.get_session('a', 's', timeout=0.1)\n"
        "except DeadlineExceeded: print('done')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_options_reach_the_client() -> None:
    codec = StateCodec()
    with SyncSessionClient("127.0.0.1:1", client_id="w", codec=codec) as client:
        assert (client.client_id, client.codec) == ("w", codec)


class Served:
    """Answers a server's watches from another thread than its event loop's."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.loop: asyncio.AbstractEventLoop | None = None
        self.arrived = threading.Event()
        self.calls: list[WatchCall] = []
        self.gone = threading.Event()

    async def behave(self, call: WatchCall) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls.append(call)
        self.arrived.set()
        await call.gone.wait()
        self.gone.set()

    def send(self, send: Callable[[WatchCall], None]) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(send, self.calls[-1])


@pytest.fixture
def watched(blocking_server: ScriptedServer) -> Served:
    served = Served(blocking_server)
    blocking_server.on_watch = served.behave
    return served


def test_a_watch(blocking_server: ScriptedServer, watched: Served) -> None:
    kept: list[tuple[bytes, int]] = []
    all_kept = threading.Event()

    def keep(token: bytes) -> None:
        # Not the event loop's thread: it may call the client.
        kept.append((token, client.get_session("a", "s").head_revision))
        if token == b"t4":
            all_kept.set()

    def events(call: WatchCall) -> None:
        call.created()
        call.event("t1")
        call.event("t2")

    blocking_server.script = [messages.GetSessionResponse(session=pb.Session(head_revision=7))]
    with SyncSessionClient(blocking_server.target, retry=FAST) as client, ThreadPoolExecutor(1) as pool:
        started = pool.submit(client.watch("a", "s", keep_token=keep).__enter__)
        assert watched.arrived.wait(5)
        watched.send(events)
        watch = started.result(5)
        assert [next(watch).event_id, next(watch).event_id] == ["t1", "t2"]
        assert (watch.resume_token, watch.event_token) == (b"t1", b"t2")
        assert kept == [(b"t0", 7), (b"t1", 7)]
        rest = pool.submit(list, watch)
        watched.send(lambda call: call.event("t3"))
        watched.send(lambda call: call.bookmark("t4"))
        assert all_kept.wait(5)
        watch.close()
        assert [event.event_id for event in rest.result(5)] == ["t3"]
        assert watched.gone.wait(5)
        watch.close()
    watch.close()


def test_a_watch_whose_client_is_closed(blocking_server: ScriptedServer, watched: Served) -> None:
    client = SyncSessionClient(blocking_server.target)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, client.watch())
        assert watched.arrived.wait(5)
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(5)
    with pytest.raises(ClientClosed):
        client.watch()


def test_a_watch_that_fails(blocking_server: ScriptedServer, watched: Served) -> None:
    with SyncSessionClient(blocking_server.target) as client, ThreadPoolExecutor(1) as pool:
        entering = pool.submit(client.watch(resume_token=b"old").__enter__)
        assert watched.arrived.wait(5)
        watched.send(lambda call: call.end(expired("AAEC")))
        with pytest.raises(CursorExpired):
            entering.result(5)


def test_a_forgotten_watch_ends_its_stream(blocking_server: ScriptedServer, watched: Served) -> None:
    with SyncSessionClient(blocking_server.target) as client:
        watch = client.watch()
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(watch.started)
            assert watched.arrived.wait(5)
            watched.send(lambda call: call.created())
            started.result(5)
        del watch
        gc.collect()
        assert watched.gone.wait(5)
