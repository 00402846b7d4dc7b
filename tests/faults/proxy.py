"""A proxy in front of PostgreSQL's Unix socket: it can fall silent, and it can be gone."""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Forwards bytes, until told otherwise."""

    def __init__(self, database_url: str, directory: Path) -> None:
        host = parse_qs(urlsplit(database_url).query)["host"][0]
        self._upstream = f"{host}/{SOCKET}"
        self.directory = directory
        """Where its socket is."""
        self._path = directory / SOCKET
        self.database_url = urlunsplit(urlsplit(database_url)._replace(query=f"host={quote(str(directory))}"))
        """The database, through this proxy."""
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def open(self) -> None:
        """Accept connections; again, after `close`."""
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def close(self) -> None:
        """Break all connections and refuse new ones."""
        assert self._server is not None
        self._server.close()
        self._path.unlink(missing_ok=True)
        for task, writers in list(self._connections.items()):
            for writer in writers:
                writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def fall_silent(self) -> None:
        """Forward nothing any more, in neither direction; connections stay, and new ones are accepted."""
        self._speaking.clear()

    def speak(self) -> None:
        """Forward again, what came meanwhile first."""
        self._speaking.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._speaking.wait()
                far_reader, far_writer = await asyncio.open_unix_connection(self._upstream)
                self._connections[task].append(far_writer)
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            for one in self._connections.pop(task):
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._speaking.wait()
            writer.write(data)
            await writer.drain()
        await self._speaking.wait()
        writer.close()
