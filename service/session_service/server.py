"""The one composition root: build, start, serve, drain, stop. Read it from the top."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Iterator
from datetime import timedelta

import grpc
import structlog
from agent_sessions.v1 import session_service_pb2, session_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from session_service.addresses import Address
from session_service.allocator import keep_freed_memory
from session_service.api.interceptors import layers, observation
from session_service.api.interceptors.pipeline import Pipeline
from session_service.api.session_servicer import SessionServicer
from session_service.api.transfers import WINDOW, TransferLimits, Transfers
from session_service.build_info import version
from session_service.config import DEFAULT_REQUEST_BYTES, Settings
from session_service.database_source import StartupError, database_url
from session_service.events.feed import Feed
from session_service.events.hints import Hint, Hints
from session_service.events.hub import Hub
from session_service.events.watches import Watches, WatchLimits
from session_service.health import Readiness, running
from session_service.housekeeping import Housekeeping
from session_service.metrics import Metrics
from session_service.ops.heartbeat import Heartbeat
from session_service.ops.http import OpsServer
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.collector import Collector
from session_service.postgres.event_hints import Listener, Notifier
from session_service.postgres.event_log import PostgresEventLog
from session_service.postgres.event_trimmer import EventTrimmer
from session_service.postgres.packer import Packer
from session_service.postgres.pool import Database
from session_service.postgres.session_store import PostgresSessionStore
from session_service.postgres.write_batcher import WriteBatcher
from session_service.sessions.manager import SessionManager

_LAST_ANSWERS = 0.5
"""Seconds for answers that were just given to leave, once no call is in flight."""
_log = structlog.stdlib.get_logger(__name__)


class Server:
    """One server process, from its start to its stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics(version())
        self._readiness = Readiness(self._metrics)
        self._in_flight = layers.CallsInFlight()
        self._servicer: SessionServicer
        self._watches: Watches
        self._started = False
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal; return when everything has stopped."""
        with self._signals():
            serving = asyncio.create_task(self._serve())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._started:
                serving.cancel()  # a signal came during the start
            stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    async def _serve(self) -> None:
        """Start one thing after the other, serve, and stop them in reverse order."""
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        _log.info("starting", version=version(), event_loop=loop, settings=repr(self._settings))
        async with contextlib.AsyncExitStack() as stack:
            await self._start_ops(stack)
            dsn = await stack.enter_async_context(database_url(self._settings))
            database = await self._connect(dsn)
            stack.push_async_callback(database.close)
            watches = await self._start_watches(stack, database)
            batcher = WriteBatcher(database, self._metrics)
            await batcher.start()
            stack.push_async_callback(batcher.close)
            server = self._build(SessionManager(self._store(database, batcher)), watches)
            address = self._bind(server)
            await server.start()
            stack.push_async_callback(self._drain, server)
            await stack.enter_async_context(running(self._readiness.follow(database.ping)))
            await stack.enter_async_context(running(self._housekeeping(database).run()))
            await self._readiness.database(up=True)
            _spare_the_collector()
            keep_freed_memory()
            _log.info("listening", address=str(address))
            self._started = True
            await self._stopping.wait()
        _log.info("stopped")

    async def _start_ops(self, stack: contextlib.AsyncExitStack) -> None:
        """Answer probes and scrapes from the first moment on: a recovery may take minutes."""
        heartbeat = Heartbeat()
        await stack.enter_async_context(running(heartbeat.run()))
        address = Address.parse(self._settings.ops_listen)
        try:
            ops = OpsServer(
                address,
                self._metrics.registry,
                is_alive=heartbeat.is_alive,
                is_ready=self._readiness.is_ready,
            )
        except OSError as failed:
            raise StartupError(f"--ops-listen: cannot listen on {address}: {failed.strerror}") from None
        ops.start()
        stack.push_async_callback(asyncio.to_thread, ops.stop)
        _log.info("operational HTTP listening", address=str(ops.address))

    async def _connect(self, dsn: str) -> Database:
        settings = self._settings
        return await Database.connect(
            dsn,
            role=settings.database_role,
            pool_size=settings.pool_size,
            statement_timeout=settings.statement_timeout,
            direct_dsn=settings.direct_database_url,
        )

    def _store(self, database: Database, batcher: WriteBatcher) -> PostgresSessionStore:
        return PostgresSessionStore(
            database,
            batcher,
            self._metrics,
            # What a request can save, a restore can read.
            max_read_bytes=self._settings.max_request_bytes,
            upload_seconds=self._settings.transfer_timeout,
        )

    def _housekeeping(self, database: Database) -> Housekeeping:
        """Put the chores together."""
        settings, metrics = self._settings, self._metrics
        chores = (
            Packer(database, Rests(settings.pack_after), metrics),
            Collector(database, metrics),
            EventTrimmer(database, timedelta(seconds=settings.event_retention), metrics),
        )
        return Housekeeping(chores, settings.housekeeping_budget)

    async def _start_watches(self, stack: contextlib.AsyncExitStack, database: Database) -> Watches:
        """Follow the log of events, and tell and hear when it grows."""
        settings, metrics = self._settings, self._metrics.watching
        hints, notifier = Hints(), Notifier(database)

        def heard(only_saves: bool) -> None:
            hints.tell(Hint.SAVES if only_saves else Hint.OTHERS)

        def written(only_saves: bool) -> None:
            heard(only_saves)
            notifier.tell(only_saves=only_saves)

        hub = Hub(hints, metrics)
        # One connection for the feed, one for all watches that read the log by themselves.
        feed_log, watch_log = PostgresEventLog(database), PostgresEventLog(database)
        limits = WatchLimits(settings.max_watches, settings.watch_send_timeout, settings.watch_bookmark_interval)
        watches = Watches(hub, watch_log, limits, metrics)
        stack.push_async_callback(feed_log.close)
        stack.push_async_callback(watch_log.close)
        for work in (
            Feed(feed_log, hints, hub, settings.event_poll_interval, metrics).run(),
            Listener(database, heard, own=notifier).run(),
            notifier.run(),
            watches.run(),
        ):
            await stack.enter_async_context(running(work))
        database.on_event = written
        return watches

    def _build(self, manager: SessionManager, watches: Watches) -> grpc.aio.Server:
        """Put servicers and layers together."""
        limit = self._settings.max_request_bytes
        pipeline = Pipeline(
            (layers.RequestId(), observation.Log(), observation.CallMetrics(self._metrics), self._in_flight),
            (self._in_flight.admit, layers.authenticate),
            limit,
        )
        server = grpc.aio.server(
            interceptors=(pipeline,),
            options=(
                ("grpc.so_reuseport", 0),  # a taken port is an error, not a second server
                # Above ours, which tells the caller more; and above what clients send that do not know ours yet.
                ("grpc.max_receive_message_length", 4 * max(limit, DEFAULT_REQUEST_BYTES) + 1024 * 1024),
                # What a stream takes in before it is read, by itself: gRPC's own estimate of what a connection can
                # carry makes it several MiB, which no budget for large states could bound.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", WINDOW),
                ("grpc.keepalive_time_ms", 30_000),
                # Clients may ask twice as often as ours does whether we are still there.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ),
        )
        self._servicer = SessionServicer(
            manager,
            self._settings.max_messages,
            self._metrics.error,
            Transfers(self._transfer_limits()),
            watcher=watches,
        )
        self._watches = watches
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, server)
        reflection.enable_server_reflection(_service_names(), server)
        return server

    def _transfer_limits(self) -> TransferLimits:
        settings = self._settings
        return TransferLimits(
            memory_bytes=settings.transfer_memory,
            message_bytes=settings.max_request_bytes,
            state_bytes=settings.max_state_bytes,
            idle_seconds=settings.transfer_idle_timeout,
            seconds=settings.transfer_timeout,
        )

    def _bind(self, server: grpc.aio.Server) -> Address:
        address = Address.parse(self._settings.listen)
        try:
            return address.with_port(server.add_insecure_port(str(address)))
        except RuntimeError:
            raise StartupError(f"--listen: cannot listen on {address}: in use, or not ours") from None

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Refuse new calls, and let those in flight finish: until drain_timeout, or a second signal.

        gRPC's own stop would cut calls that come over an open connection without saying why, so it
        comes last. Streams of the infrastructure (health Watch) never end by themselves; nobody waits for them.
        """
        self._in_flight.refuse()
        calls = self._in_flight.count
        await self._readiness.drain()
        # After the probes have turned: who reads the line may rely on them.
        _log.info("draining", calls=calls, timeout=self._settings.drain_timeout)
        self._servicer.drain()
        self._watches.close()
        idle = asyncio.create_task(self._in_flight.wait_until_idle())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({idle, hurried}, timeout=self._settings.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, hurried):
            task.cancel()
        await server.stop(_LAST_ANSWERS if idle.done() and not self._hurried.is_set() else None)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            _log.warning("hurrying", signal=number.name)
            self._hurried.set()
        else:
            _log.info("stopping", signal=number.name)
            self._stopping.set()


def _spare_the_collector() -> None:
    """Let the garbage collector leave alone what stays, and run less often: what a save makes is gone without it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _service_names() -> tuple[str, ...]:
    return (
        session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
    )
