"""The data directory of the embedded PostgreSQL: layout, lock, socket.

DATA_DIR/
lock          held (flock) by the server that uses the directory; holds its process id
pgdata/       PostgreSQL's own files; as root, of the user pgserver
postgres.log  what PostgreSQL says
run/          the Unix socket; if its path is too long, a directory in the runtime directory
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

from session_service.postgres.embedded_binaries import (
    MAJOR_VERSION,
    EmbeddedPostgresError,
    Owner,
    make_reachable,
    run,
)

_SOCKET_PATH_LIMIT = 103
"""Bytes that a socket's path may have: 107 on Linux, 103 on macOS."""
_LOG_LIMIT = 10 * 1024 * 1024
"""Bytes of postgres.log above which a start puts it aside."""


class DataDirectoryInUseError(EmbeddedPostgresError):
    """Another server uses the data directory."""


class DataDirectory:
    """Paths of one data directory, and the lock on it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.pgdata = self.path / "pgdata"
        self.log = self.path / "postgres.log"
        self._lock: int | None = None

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket is."""
        preferred = self.path / "run"
        length = len(os.fsencode(preferred / ".s.PGSQL.5432"))
        # asyncpg takes a comma for a list of hosts.
        if length <= _SOCKET_PATH_LIMIT and "," not in str(preferred):
            return preferred
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return _runtime_dir() / f"agent-session-service-{name}"

    def dsn(self, user: str, database: str) -> str:
        """Return the URL of a database in it."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket_dir), safe='/')}"

    def lock(self) -> None:
        """Take the directory, made if need be; DataDirectoryInUseError names the process that has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as failed:
            raise EmbeddedPostgresError(f"cannot use {self.path}: {failed.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryInUseError(
                f"{self.path} is in use by another server (process {holder}): stop it, or choose another --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def prepare(self, owner: Owner) -> None:
        """Make what is missing. Requires the lock."""
        if owner.switched:
            make_reachable(self.path / "pgdata")
        self._prepare_socket_dir(owner)
        self._put_log_aside()
        if self.pgdata.exists():
            self._check_version()
        else:
            await self._initialise(owner)

    async def _initialise(self, owner: Owner) -> None:
        """Make a database cluster beside its place and move it there: pgdata is complete or absent."""
        unfinished = self.path / "pgdata.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, owner.uid, owner.gid)
        await run(
            owner,
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--auth=trust",  # whoever may enter the socket's directory is the owner of the data
        )
        unfinished.rename(self.pgdata)

    def _check_version(self) -> None:
        try:
            version = (self.pgdata / "PG_VERSION").read_text().strip()
        except OSError as failed:
            raise EmbeddedPostgresError(f"{self.pgdata} holds no database: {failed.strerror}") from None
        if version != str(MAJOR_VERSION):
            raise EmbeddedPostgresError(
                f"{self.pgdata} was made by PostgreSQL {version}, this is {MAJOR_VERSION}: dump and load it"
            )

    def _prepare_socket_dir(self, owner: Owner) -> None:
        directory = self.socket_dir
        if owner.switched:
            make_reachable(directory)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        # In a shared directory like /tmp another user may have been first.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner.uid}:
            raise EmbeddedPostgresError(f"{directory} belongs to somebody else")
        directory.chmod(0o700)
        os.chown(directory, owner.uid, owner.gid)

    def remove_socket_dir(self) -> None:
        """Remove the socket's directory, after PostgreSQL has stopped."""
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def _put_log_aside(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.rename(self.log.with_suffix(".log.1"))

    def open_log(self) -> int:
        """Open PostgreSQL's log for writing at its end; the caller closes it."""
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def last_words(self, lines: int = 12) -> str:
        """Return the end of PostgreSQL's log, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def _runtime_dir() -> Path:
    """Return a directory with a short path."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    if named and Path(named).is_dir() and len(named) < 50:
        return Path(named)
    found = Path(tempfile.gettempdir())
    return found if len(str(found)) < 50 else Path("/tmp")  # noqa: S108 - the directory in it is checked
