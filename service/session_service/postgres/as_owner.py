"""Run as a program: becomes a user, and then another program.

    python as_owner.py UID GID PROGRAM ARGUMENT ...

Python's own subprocesses can change their user; those of uvloop cannot. The
process id stays the same throughout.
"""

import os
import sys


def main(uid: str, gid: str, program: str, *arguments: str) -> None:
    """Replace this process. Only root can take another user's place; anyone can keep their own."""
    os.umask(0o077)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main(*sys.argv[1:])
