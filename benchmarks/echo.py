"""What a call costs, or a message of a stream: a gRPC server that sends bytes back, on the service's event loop."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import grpc
from session_service import event_loop

ECHO = "/benchmarks.Echo/Echo"
AGAIN = "/benchmarks.Echo/Again"
STREAM = "/benchmarks.Echo/Stream"


class Echo:
    """Methods on bytes, without messages in between."""

    def __init__(self) -> None:
        self._last = b""

    async def echo(self, request: bytes, context: object) -> bytes:
        """Answer with what came."""
        self._last = request
        return request

    async def again(self, request: bytes, context: object) -> bytes:
        """Answer with what came last: the bytes cross in one direction only."""
        return self._last

    async def stream(self, requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        """Answer each message with itself."""
        async for request in requests:
            yield request

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods for a server."""
        methods = {"Echo": self.echo, "Again": self.again}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        handlers["Stream"] = grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.method_handlers_generic_handler("benchmarks.Echo", handlers)


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo().handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"event": "listening", "address": f"127.0.0.1:{port}"}), file=sys.stderr, flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop.factory("auto")) as runner:
        runner.run(_serve())
