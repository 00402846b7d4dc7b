"""buildah and podman on a storage of their own: nothing of the machine's is used, nothing is left."""

import json
import os
import resource
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from .machine import program

# What the manifests ask of Kubernetes, as podman says it. Even /tmp is not writable.
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)


@dataclass(frozen=True)
class Finished:
    """A container that has run to its end."""

    exit_code: int
    output: str
    """What it wrote to stdout and stderr."""


class Container:
    """A container that was started."""

    def __init__(self, engine: "ContainerEngine", name: str) -> None:
        self._engine = engine
        self.name = name

    def output(self) -> str:
        """Return what it has written so far to stdout and stderr."""
        return self._engine.podman("logs", self.name, merge=True)

    def terminate(self) -> None:
        """Send SIGTERM, as Kubernetes does."""
        self._engine.podman("kill", "--signal", "TERM", self.name)

    def wait(self, seconds: float) -> Finished:
        """Wait for its end, at most so long."""
        try:
            exit_code = self._engine.podman("wait", self.name, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output()}") from None
        return Finished(int(exit_code), self.output())


class ContainerEngine:
    """Builds images and runs containers, as root, without a daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]

    def import_image(self, root_filesystem: Path, name: str) -> None:
        """Make an image of a tar file."""
        self.podman("import", str(root_filesystem), name, timeout=120)

    def build(self, context: Path, name: str, *, base: str, wheels: Path, arguments: Mapping[str, str]) -> None:
        """Build the Dockerfile of a directory, with packages from a directory of wheels only."""
        configuration = self._directory / "pip.conf"
        configuration.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        build_arguments = {"BASE_IMAGE": base, **arguments}
        self._run(
            [program("buildah"), *self._storage, "bud", "--isolation", "chroot", "--network", "host"]
            + [f"--volume={wheels}:/wheels:ro", f"--volume={configuration}:/etc/pip.conf:ro"]
            + [f"--build-arg={key}={value}" for key, value in build_arguments.items()]
            + ["--tag", name, str(context)],
            timeout=240,
            merge=True,
        )

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what the image says about itself."""
        described: list[dict[str, Any]] = json.loads(self.podman("image", "inspect", image))
        return described[0]

    @contextmanager
    def container(
        self,
        image: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> Iterator[Container]:
        """Run a container, hardened, on the host's network, while the block runs."""
        environment = environment or {}
        container = Container(self, f"session-service-{uuid4().hex[:12]}")
        try:
            self.podman(
                *("run", "--detach", "--name", container.name, "--network", "host"),
                *("--log-driver", "k8s-file", "--pull", "never"),
                *HARDENED,
                *_limits(),
                # By name only: a value on the command line would show in the process list.
                *(f"--env={name}" for name in environment),
                *options,
                image,
                *arguments,
                environment=environment,
            )
            yield container
        finally:
            self.podman("rm", "--force", "--time", "0", "--ignore", container.name)

    def run(
        self,
        image: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        seconds: float = 30,
    ) -> Finished:
        """Run a container to its end."""
        with self.container(image, *arguments, environment=environment, options=options) as container:
            return container.wait(seconds)

    def remove_everything(self) -> None:
        """Remove all containers and images of this storage."""
        self.podman("rm", "--all", "--force", "--time", "0")
        self.podman("rmi", "--all", "--force")

    def podman(
        self,
        *arguments: str,
        timeout: float = 60,
        merge: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one command of podman and return what it says."""
        command = [program("podman"), *self._storage, "--tmpdir", str(self._directory / "tmp")]
        command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments]
        return self._run(command, timeout=timeout, merge=merge, environment=environment)

    def _run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        merge: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        done = subprocess.run(
            command,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = done.stdout + (done.stderr or "")
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{said[-6000:]}"
        return done.stdout


def _limits() -> list[str]:
    """Return limits that this process may grant: podman's own defaults can be above them."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 20000 if files == resource.RLIM_INFINITY else min(files, 20000)
    return [f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=1000:1000"]
