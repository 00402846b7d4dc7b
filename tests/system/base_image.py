"""What the image is built from on a machine without an image registry.

A Debian 12 with its Python 3.11 from the machine's own Debian mirror, and the
pinned wheels from the machine's own package index: both as the machine is set
up to reach them, so that the build itself needs no network. Both are kept in
.build/system; remove that directory to fetch them anew.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .machine import program
from .stopwatch import measured

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".build" / "system"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv")
UNUSED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")
REQUIREMENTS = ("requirements/build.txt", "requirements/image.txt")


def base_root_filesystem() -> Path:
    """Return a tar file of Debian with Python."""
    kept = CACHE / f"{SUITE}-{'-'.join(PACKAGES)}.tar"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with measured("debootstrap"), tempfile.TemporaryDirectory(prefix="session-service-base-") as directory:
        tree = Path(directory) / "root"
        options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
        _run([program("debootstrap"), *options, SUITE, str(tree), *_mirror()])
        for part in UNUSED:
            shutil.rmtree(tree / part)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        _run(["tar", "--directory", str(tree), "--create", "--file", str(unfinished), "."])
        unfinished.rename(kept)
    return kept


def wheels() -> Path:
    """Return a directory of the wheels that the image is built from, checked against their hashes."""
    files = [REPOSITORY / name for name in REQUIREMENTS]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    kept = CACHE / f"wheels-{digest[:16]}"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with measured("wheels"), tempfile.TemporaryDirectory(dir=CACHE) as directory:
        fetched = Path(directory) / "wheels"
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "--python-version",
                "3.11",
            ]
            + ["--only-binary", ":all:", "--dest", str(fetched)]
            + [argument for file in files for argument in ("--requirement", str(file))]
        )
        fetched.rename(kept)
    return kept


def _mirror() -> list[str]:
    """Return the mirror that apt uses on this machine; nothing leaves it to debootstrap."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split(" ", 1)[1] for line in listed.stdout.splitlines() if line.startswith(f"{SUITE} ")]
    return found[:1]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-4000:]}"
