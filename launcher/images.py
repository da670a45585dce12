"""The model images: build the ones whose inputs changed, keep the others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from launcher.base_images import python_image
from launcher.console import seconds
from launcher.errors import LauncherError
from numerai_pipeline.core.settings import machine_cores
from numerai_pipeline.models.images import BASE, image_reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from launcher.console import Step
    from launcher.docker_cli import Docker

LABEL = "numerai.image"
_BASE_NAME = "base-python"
# builds wait for the network and the disk; more at once would only share these
MOST_AT_ONCE = 4


def python_versions(images: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn image → Python version into Python version → the images based on it."""
    needed: dict[str, list[str]] = {}
    for image, version in images.items():
        needed.setdefault(version, []).append(image)
    return needed


class ModelImages:
    """The model images of a checkout on an engine; `images` maps each to its Python version."""

    def __init__(self, docker: Docker, images_dir: Path, images: Mapping[str, str], logs: Path) -> None:
        self._docker = docker
        self._images_dir = images_dir
        self._images = images
        self._logs = logs

    def references(self) -> dict[str, str]:
        """Image → its full name, which has a hash of its present inputs; the bases first."""
        bases = {f"{_BASE_NAME}{python}": (BASE, python) for python in python_versions(self._images)}
        try:
            return {
                name: image_reference(self._images_dir, *of)
                for name, of in (bases | {image: (image, python) for image, python in self._images.items()}).items()
            }
        except FileNotFoundError as error:
            msg = f"{error.filename or error} is missing: every image named in models.yaml needs a Dockerfile"
            raise LauncherError(msg) from None

    def missing(self) -> list[str]:
        """Names of the images to build."""
        return [name for name, reference in self.references().items() if not self._docker.has_image(reference)]

    def build(self, step: Step) -> None:
        """Build the missing images, the bases first and independent ones in parallel."""
        references, missing = self.references(), self.missing()
        lock, in_progress, durations = threading.Lock(), list[str](), dict[str, float]()

        def display() -> None:
            if in_progress:
                counted = f" ({len(durations)} of {len(missing)} done)" if len(missing) > 1 else ""
                step.update(f"building {', '.join(references[name] for name in in_progress)}{counted}")

        def build_one(name: str) -> None:
            started = time.monotonic()
            with lock:
                in_progress.append(name)
                display()
            self._build_one(name, references)
            with lock:
                durations[name] = time.monotonic() - started
                in_progress.remove(name)
                display()

        for is_base in (True, False):
            with ThreadPoolExecutor(min(machine_cores(), MOST_AT_ONCE)) as pool:
                builds = [pool.submit(build_one, name) for name in missing if (name not in self._images) == is_base]
                try:
                    for built in as_completed(builds):
                        built.result()
                except BaseException as error:
                    # beside a failure the builds in progress are finished; a stop by the user cancels them
                    if not isinstance(error, LauncherError):
                        self._docker.commands.cancel()
                    pool.shutdown(cancel_futures=True)
                    raise
        outcomes = [f"{name} built in {seconds(durations[name])}" for name in missing]
        unchanged = [name for name in references if name not in missing]
        step.done("; ".join([*outcomes, *([f"{', '.join(unchanged)} unchanged"] if unchanged else [])]))

    def _build_one(self, name: str, references: Mapping[str, str]) -> None:
        if name in self._images:
            folder, arguments = name, {"BASE": references[f"{_BASE_NAME}{self._images[name]}"]}
        else:
            folder, arguments = BASE, {"PYTHON_IMAGE": python_image(name.removeprefix(_BASE_NAME))}
        dockerfile, log = self._images_dir / folder / "Dockerfile", self._logs / f"build-{name}.log"
        options = ["--label", f"{LABEL}={folder}"]
        self._docker.build(name, references[name], self._images_dir, dockerfile, arguments, log, options)
