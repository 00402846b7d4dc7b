"""The client for programs without an event loop: the asyncio client, on a thread of its own."""

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack

import grpc

from agent_sessions.client import SessionClient
from agent_sessions.connection import ChannelOptions, Metadata
from agent_sessions.errors import ClientClosed
from agent_sessions.pages import Item, Page, Pager
from agent_sessions.retry import RetryPolicy
from agent_sessions.session import Session
from agent_sessions.state import StateCodec
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.watch import SILENCE_TIMEOUT, EventType, Watch

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of SessionClient, but for `channel`: a channel belongs to one event loop."""

    client_id: str | None
    timeout: float
    retry: RetryPolicy | None
    codec: StateCodec | None
    metadata: Metadata
    credentials: grpc.ChannelCredentials | None
    channel_options: ChannelOptions
    stream: bool


class _LoopThread:
    """An event loop on a background thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # The garbage collector may call `soon` and `stop` in the middle of the others.
        self._lock = threading.RLock()
        self._stopped = False
        # A daemon: a client that nobody closes must not keep the program from ending.
        self._thread = threading.Thread(target=self._serve, name="agent-sessions", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for the coroutine's result; if the wait is interrupted (Ctrl-C), cancel it."""
        with self._lock:
            if self._stopped:
                work.close()
                raise ClientClosed("this client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("this client was closed during the call") from None
        except BaseException:
            future.cancel()
            raise

    def soon(self, work: Callable[[], object]) -> None:
        """Have it done by the thread, if that still runs, and do not wait."""
        with self._lock:
            if not self._stopped:
                self._loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        """End what still runs, and the thread. May be called twice."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        # The garbage collector may end a forgotten client on the very thread that is to end.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        # The runner's exit cancels what is left and closes the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


def _blocking(
    method: Callable[Concatenate[SessionClient, _Arguments], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate["SyncSessionClient", _Arguments], _Result]:
    @functools.wraps(method)
    def call(client: "SyncSessionClient", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return client._thread.run(method(client._client, *args, **kwargs))

    return call


def _blocking_list(
    method: Callable[Concatenate[SessionClient, _Arguments], Pager[Item]],
) -> Callable[Concatenate["SyncSessionClient", _Arguments], "SyncPager[Item]"]:
    @functools.wraps(method)
    def call(client: "SyncSessionClient", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> "SyncPager[Item]":
        return SyncPager(client, method(client._client, *args, **kwargs))

    return call


class SyncPager(Generic[Item]):
    """A Pager for programs without an event loop; see there."""

    def __init__(self, client: "SyncSessionClient", pager: Pager[Item]) -> None:
        self._client = client
        self._pager = pager

    def page(self, page_token: str = "") -> Page[Item]:
        """Return one page: the first, or the one a `next_page_token` stands for."""
        return self._client._thread.run(self._pager.page(page_token))

    def pages(self, page_token: str = "") -> Iterator[Page[Item]]:
        """Iterate over the pages from there on."""
        while True:
            page = self.page(page_token)
            yield page
            page_token = page.next_page_token
            if not page_token:
                return

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from page.items


def _blocking_in_session(
    method: Callable[Concatenate[Session, _Arguments], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate["SyncSession", _Arguments], _Result]:
    @functools.wraps(method)
    def call(session: "SyncSession", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return session._client._thread.run(method(session._session, *args, **kwargs))

    return call


class SyncSession:
    """A Session for programs without an event loop; see there. Made by `SyncSessionClient.session`."""

    def __init__(self, client: "SyncSessionClient", session: Session) -> None:
        self._client = client
        self._session = session

    append = _blocking_in_session(Session.append)
    save = _blocking_in_session(Session.save)
    restore = _blocking_in_session(Session.restore)
    load = _blocking_in_session(Session.load)

    @property
    def agent_id(self) -> str:
        """The agent."""
        return self._session.agent_id

    @property
    def session_name(self) -> str:
        """The session's name."""
        return self._session.session_name

    @property
    def revision(self) -> int:
        """The revision that was acknowledged or read last; 0: none yet."""
        return self._session.revision

    @property
    def message_count(self) -> int:
        """Messages in that revision."""
        return self._session.message_count


class SyncWatch:
    """A Watch for programs without an event loop; see there. Made by `SyncSessionClient.watch`.

        with client.watch("agent", "session") as watch:
            for event in watch: ...

    Another thread may close it, which ends the loop.
    """

    def __init__(self, client: "SyncSessionClient", watch: Watch) -> None:
        self._client = client
        self._watch = watch
        # One that nobody closes; its thread is the event loop's, which this is not.
        end = functools.partial(watch.end, StopAsyncIteration())
        weakref.finalize(self, client._thread.soon, end).atexit = False

    @property
    def resume_token(self) -> bytes:
        """To go on after what this side is done with."""
        return self._watch.resume_token

    @property
    def event_token(self) -> bytes:
        """To go on after the event that was given last."""
        return self._watch.event_token

    def started(self) -> None:
        """Wait until the server watches."""
        self._client._thread.run(self._watch.started())

    def close(self) -> None:
        """End it. May be called twice, and after the client was closed, which ends it, too."""
        with suppress(ClientClosed):
            self._client._thread.run(self._watch.aclose())

    def __iter__(self) -> Iterator[pb.SessionEvent]:
        """Return itself: there is one place in the log, however many loops."""
        return self

    def __next__(self) -> pb.SessionEvent:
        """Wait for the next event."""
        try:
            return self._client._thread.run(self._watch.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        """Wait until the server watches."""
        try:
            self.started()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class SyncSessionClient:
    """SessionClient for programs without an event loop: the same calls, arguments and errors.

        with SyncSessionClient("127.0.0.1:7450") as client:
            saved = client.save("agent", "session", State(messages=["hi"]))

    May be used from several threads at once. Takes SessionClient's arguments, but
    for `channel`.
    """

    def __init__(self, target: str = "127.0.0.1:7450", **options: Unpack[ClientOptions]) -> None:
        self._client = SessionClient(target, **options)
        self._thread = _LoopThread()
        self._stop = weakref.finalize(self, self._thread.stop)

    save = _blocking(SessionClient.save)
    restore = _blocking(SessionClient.restore)
    get_session = _blocking(SessionClient.get_session)
    get_revision = _blocking(SessionClient.get_revision)
    list_sessions = _blocking_list(SessionClient.list_sessions)
    list_revisions = _blocking_list(SessionClient.list_revisions)
    delete = _blocking(SessionClient.delete)
    undelete = _blocking(SessionClient.undelete)

    def session(
        self,
        agent_id: str,
        session_name: str,
        *,
        user_id: str = "",
        exclusive: bool = False,
        client_id: str | None = None,
    ) -> SyncSession:
        """Return an object that saves one session by sending what is new; see `SessionClient.session`."""
        session = self._client.session(
            agent_id, session_name, user_id=user_id, exclusive=exclusive, client_id=client_id
        )
        return SyncSession(self, session)

    def watch(
        self,
        agent_id: str = "",
        session_name: str = "",
        *,
        types: Iterable[int] = (EventType.RESTORED,),
        resume_token: bytes = b"",
        keep_token: Callable[[bytes], object] | None = None,
        silence_timeout: float = SILENCE_TIMEOUT,
    ) -> SyncWatch:
        """Iterate over what happens; see `SessionClient.watch`. `keep_token` is called in a thread of its own."""

        async def watch() -> Watch:
            return self._client.watch(
                agent_id,
                session_name,
                types=types,
                resume_token=resume_token,
                # Not in the event loop's thread, where it could not call this client.
                keep_token=None if keep_token is None else lambda token: asyncio.to_thread(keep_token, token),
                silence_timeout=silence_timeout,
            )

        return SyncWatch(self, self._thread.run(watch()))

    @property
    def client_id(self) -> str:
        """Names this worker in events."""
        return self._client.client_id

    @property
    def codec(self) -> StateCodec:
        """Register classes, enums and modules here."""
        return self._client.codec

    def close(self) -> None:
        """End calls in flight, close the channel, and end the thread. May be called twice."""
        if self._stop.alive:
            try:
                self._thread.run(self._client.close())
            finally:
                self._stop()

    def __enter__(self) -> Self:
        """Return the client; nothing is connected before the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()
