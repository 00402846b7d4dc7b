"""A real PostgreSQL on a loopback port, with the roles that docs/deployment.md tells to make."""

import re
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from session_service.postgres.embedded_binaries import (
    PROCESS_OPTIONS,
    binaries,
    find_owner,
    make_programs_readable,
    make_reachable,
)

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "deployment.md"

# Only the superuser, whom no container knows, gets in without a password.
ACCESS = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class DatabaseUrls:
    """The two ways into one database. Both hold a password."""

    owner: str
    """May change the schema; for `migrate`."""
    server: str
    """May not; for `serve`."""


class Postgres:
    """One PostgreSQL server, in a directory of its own, as an unprivileged user."""

    def __init__(self, directory: Path) -> None:
        self._data = directory
        self._programs = binaries()
        self._owner = find_owner()
        self._port = free_port()
        self.owner_password = secrets.token_hex(16)
        self.server_password = secrets.token_hex(16)

    def start(self) -> None:
        """Make the data directory and the documented roles; accepts connections on return."""
        make_programs_readable(self._programs)
        self._data.mkdir(mode=0o700)
        make_reachable(self._data)
        if self._owner.switched:
            shutil.chown(self._data, self._owner.uid, self._owner.gid)
        data = f"--pgdata={self._data}"
        self._run("initdb", data, "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
        (self._data / "pg_hba.conf").write_text(ACCESS)
        listen = f"-h 127.0.0.1 -p {self._port} -k ''"
        self._run("pg_ctl", "start", data, "--wait", f"--log={self._data / 'log'}", f"--options={listen}")
        self.execute(self._documented_roles())

    def stop(self) -> None:
        """Stop it, if it runs; the data need not survive."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", f"--pgdata={self._data}", "--wait", "--mode=immediate")

    def new_database(self) -> DatabaseUrls:
        """Make an empty database."""
        name = f"sessions_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name} OWNER session_service_owner")
        return DatabaseUrls(
            owner=f"postgresql://session_service_owner:{self.owner_password}@127.0.0.1:{self._port}/{name}",
            server=f"postgresql://session_service_server:{self.server_password}@127.0.0.1:{self._port}/{name}",
        )

    def execute(self, sql: str) -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        connection = ["--host=127.0.0.1", f"--port={self._port}", "--username=postgres", "--dbname=postgres"]
        self._run("psql", *connection, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", text=sql)

    def _documented_roles(self) -> str:
        found = re.search(r"```sql\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
        assert found, f"{DOCUMENTATION} shows no SQL"
        sql = found[1].replace("owner-password", self.owner_password)
        return sql.replace("server-password", self.server_password)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        # Into a file: a pipe would stay open as long as the server that pg_ctl starts.
        with (self._data.parent / f"{program}.output").open("w+") as output:
            done = subprocess.run(
                self._owner.command(self._programs / program, *arguments),
                input=text.encode(),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
                **PROCESS_OPTIONS,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program} failed: {output.read()[-4000:]}"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
