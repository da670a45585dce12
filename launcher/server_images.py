"""The images of a server: Airflow with the bundle inside, the socket proxy, and third-party ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.base_images import BaseImages, python_image
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from numerai_pipeline.models.images import PYTHON, content_hash, source_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths

LABEL = "numerai.made-from"


@dataclass(frozen=True)
class BuiltImage:
    """An image built from this checkout: its setting, and its files and those it contains, relative to the checkout."""

    name: str
    setting: str
    context: str
    dockerfile: str
    inputs: tuple[str, ...]


AIRFLOW = BuiltImage(
    "Airflow",
    "AIRFLOW_IMAGE",
    ".",
    "server/airflow/Dockerfile",
    (".dockerignore", "dags", "model_images", "plugins", "practice", "pyproject.toml", "server/airflow", "uv.lock"),
)
PROXY_FOLDER = "server/socket_proxy"
SOCKET_PROXY = BuiltImage(
    "socket-proxy", "SOCKET_PROXY_IMAGE", PROXY_FOLDER, f"{PROXY_FOLDER}/Dockerfile", (PROXY_FOLDER,)
)
# third-party images, and the profiles that need them
THIRD_PARTY = {"POSTGRES_IMAGE": "", "TLS_IMAGE": "tls", "REDIS_IMAGE": "celery"}


class ServerImages:
    """Provides the images of a server on this machine."""

    def __init__(self, docker: Docker, paths: ProjectPaths, settings: Mapping[str, str], *, may_install: bool) -> None:
        self._docker = docker
        self._paths = paths
        self._settings = settings
        self._bases = BaseImages(docker, paths, may_install=may_install)

    def ensure(self, step: Step, *, third_party: bool = True) -> None:
        """Build our images whose inputs changed, and pull third-party ones, which a worker does not need."""
        outcomes = [self._ensure_built(image, step) for image in (AIRFLOW, SOCKET_PROXY)]
        profiles = ["", *self._settings.get("COMPOSE_PROFILES", "").split(",")]
        needed = [setting for setting, profile in THIRD_PARTY.items() if third_party and profile in profiles]
        step.done(", ".join([*outcomes, *(self._ensure_third_party(setting, step) for setting in needed)]))

    def _ensure_built(self, image: BuiltImage, step: Step) -> str:
        reference, root = self._settings[image.setting], self._paths.root
        if "/" in reference:
            return self._ensure_third_party(image.setting, step)
        input_hash = build_input_hash(root, image)
        if self._docker.label_of_image(reference, LABEL) == input_hash:
            return f"{reference} unchanged"
        arguments = {}
        if image is AIRFLOW:
            self._bases.ensure({PYTHON: [reference]}, step)
            arguments["PYTHON_IMAGE"] = python_image(PYTHON)
        else:
            self._bases.ensure_debian(step)
        step.update(f"building {reference}")
        log, options = self._paths.logs / f"build-{image.name.lower()}.log", ["--label", f"{LABEL}={input_hash}"]
        context, dockerfile = root / image.context, root / image.dockerfile
        self._docker.build(image.name, reference, context, dockerfile, arguments, log, options)
        return f"{reference} built"

    def _ensure_third_party(self, setting: str, step: Step) -> str:
        reference = self._settings.get(setting, "")
        if not reference:
            msg = f"{setting} is not set in {self._paths.env_file}"
            raise LauncherError(msg, "See .env.example for its default.")
        if self._docker.has_image(reference):
            return f"{reference} is present"
        step.update(f"pulling {reference}")
        if self._bases.pull(reference):
            return f"{reference} pulled"
        raise LauncherError(
            f"the image {reference} is not on this machine and cannot be pulled",
            f"Set a present image, or one of a reachable registry, in {self._paths.env_file}:  {setting}=…",
            f"Docker's output: {self._paths.logs / 'pull.log'}",
            exit_code=EXIT_UNAVAILABLE,
        )


def build_input_hash(root: Path, image: BuiltImage) -> str:
    """Hash of the names and contents of all files that an image is built from: 12 hexadecimal digits."""
    return content_hash(root, (path for name in image.inputs for path in source_files(root / name)))
