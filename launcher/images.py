"""The model images: build the ones whose inputs changed, keep the others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TYPE_CHECKING

from launcher.base_images import python_image
from launcher.console import seconds
from launcher.errors import LauncherError
from launcher.processes import CommandError, tail
from numerai_pipeline.core.settings import machine_cores
from numerai_pipeline.models.images import BASE, image_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from launcher.console import Step
    from launcher.docker_cli import Docker

LABEL = "numerai.image"
_BASE_NAME = "base-python"
BUILD_SECONDS = 3600.0
# builds wait for the network and the disk; more at once would only share these
MOST_AT_ONCE = 4


def python_versions(images: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn image → Python version into Python version → the images based on it."""
    needed: dict[str, list[str]] = {}
    for image, version in images.items():
        needed.setdefault(version, []).append(image)
    return needed


class ModelImages:
    """The model images of a checkout on an engine."""

    def __init__(self, docker: Docker, images_dir: Path, images: Mapping[str, str], logs: Path) -> None:
        self._docker = docker
        self._images_dir = images_dir
        self._images = images
        self._logs = logs

    def references(self) -> dict[str, str]:
        """Image → its full name, which has a hash of its present inputs; the bases first."""
        try:
            bases = {_base_name(python): self._reference(BASE, python) for python in python_versions(self._images)}
            return bases | {image: self._reference(image, python) for image, python in self._images.items()}
        except FileNotFoundError as error:
            msg = f"{error.filename or error} is missing: every image named in models.yaml needs a Dockerfile"
            raise LauncherError(msg) from None

    def _reference(self, image: str, python: str) -> str:
        return image_reference(self._images_dir, image, python)

    def missing(self) -> list[str]:
        """Names of the images to build."""
        return [name for name, reference in self.references().items() if not self._docker.has_image(reference)]

    def build(self, step: Step) -> None:
        """Build the missing images.

        Raises
        ------
        LauncherError
            With the last lines of the failed build, and the path of its log.
        """
        references = self.references()
        missing = self.missing()
        bases = [name for name in missing if name not in self._images]
        builds = _Builds(step, references, len(missing))
        for together in (bases, [name for name in missing if name not in bases]):
            self._build_parallel(together, references, builds)
        outcomes = [f"{name} built in {seconds(builds.durations[name])}" for name in missing]
        unchanged = [name for name in references if name not in missing]
        outcomes += [f"{', '.join(unchanged)} unchanged"] if unchanged else []
        step.done("; ".join(outcomes))

    def _build_parallel(self, names: Sequence[str], references: Mapping[str, str], builds: _Builds) -> None:
        """Build images that do not depend on each other; when one fails, the builds in progress are finished."""

        def build_one(name: str) -> None:
            with builds.in_progress(name):
                self._build_one(name, references)

        with ThreadPoolExecutor(min(machine_cores(), MOST_AT_ONCE)) as pool:
            try:
                for built in as_completed([pool.submit(build_one, name) for name in names]):
                    built.result()
            except LauncherError:
                pool.shutdown(cancel_futures=True)
                raise
            except BaseException:
                # stopped by the user: cancel the others
                self._docker.commands.cancel()
                pool.shutdown(cancel_futures=True)
                raise

    def _build_one(self, name: str, references: Mapping[str, str]) -> None:
        python = self._images.get(name)
        if python is None:
            folder, python = BASE, name.removeprefix(_BASE_NAME)
            arguments = {"PYTHON_IMAGE": python_image(python)}
        else:
            folder = name
            arguments = {"BASE": references[_base_name(python)]}
        log = self._logs / f"build-{name}.log"
        log.unlink(missing_ok=True)
        command: list[str | Path] = ["docker", "build", "--force-rm", "--label", f"{LABEL}={folder}"]
        for argument, value in arguments.items():
            command += ["--build-arg", f"{argument}={value}"]
        command += ["--tag", references[name], "--file", self._images_dir / folder / "Dockerfile", self._images_dir]
        try:
            self._docker.commands.run(command, timeout=BUILD_SECONDS, log=log, env=self._docker.builder_environment)
        except CommandError as error:
            msg = f"the image {name} could not be built"
            raise LauncherError(msg, tail(error.output), f"The full log: {log}") from None


class _Builds:
    """Displays the images in progress, and stores the duration of each build."""

    def __init__(self, step: Step, references: Mapping[str, str], total: int) -> None:
        self._step, self._references, self._total = step, references, total
        self.durations: dict[str, float] = {}
        self._names: list[str] = []
        self._lock = threading.Lock()

    @contextmanager
    def in_progress(self, name: str) -> Iterator[None]:
        """Display an image as being built during the block."""
        started = time.monotonic()
        self._display(begun=name)
        yield
        self.durations[name] = time.monotonic() - started
        self._display(ended=name)

    def _display(self, *, begun: str = "", ended: str = "") -> None:
        with self._lock:
            self._names = [name for name in [*self._names, begun] if name and name != ended]
            if self._names:
                counted = f" ({len(self.durations)} of {self._total} done)" if self._total > 1 else ""
                self._step.update(f"building {', '.join(self._references[name] for name in self._names)}{counted}")


def _base_name(python: str) -> str:
    return f"{_BASE_NAME}{python}"
