"""The images of a server: Airflow with the bundle inside, the socket proxy, and the database's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.base_images import BaseImages, python_image
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, tail
from numerai_pipeline.models.images import PYTHON, content_hash, source_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths

LABEL = "numerai.made-from"
BUILD_SECONDS = 3600.0


@dataclass(frozen=True)
class BuiltImage:
    """An image built from this checkout.

    Attributes
    ----------
    name
        Its name in messages.
    setting
        The setting with its reference.
    context
        The build context, relative to the checkout.
    dockerfile
        Relative to the checkout.
    inputs
        The files of the checkout that it contains.
    """

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
SOCKET_PROXY = BuiltImage(
    "socket proxy",
    "SOCKET_PROXY_IMAGE",
    "server/socket_proxy",
    "server/socket_proxy/Dockerfile",
    ("server/socket_proxy",),
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
        """Build our images whose inputs changed, pull third-party ones.

        Parameters
        ----------
        step
            Displays the progress.
        third_party
            Whether third-party images are needed: a worker needs none.

        Raises
        ------
        LauncherError
            Naming the unavailable image, and the remedy.
        """
        outcomes = [self._ensure_built(image, step) for image in (AIRFLOW, SOCKET_PROXY)]
        profiles = self._settings.get("COMPOSE_PROFILES", "").split(",")
        for setting, profile in THIRD_PARTY.items() if third_party else ():
            if not profile or profile in profiles:
                outcomes.append(self._ensure_third_party(setting, step))
        step.done(", ".join(outcomes))

    def _ensure_built(self, image: BuiltImage, step: Step) -> str:
        reference = self._settings[image.setting]
        if "/" in reference:
            return self._ensure_third_party(image.setting, step)
        input_hash = build_input_hash(self._paths.root, image)
        if self._label(reference) == input_hash:
            return f"{reference} unchanged"
        arguments = {}
        if image is AIRFLOW:
            self._bases.ensure({PYTHON: [reference]}, step)
            arguments["PYTHON_IMAGE"] = python_image(PYTHON)
        else:
            self._bases.ensure_debian(step)
        step.update(f"building {reference}")
        self._build(image, reference, input_hash, arguments)
        return f"{reference} built"

    def _build(self, image: BuiltImage, reference: str, input_hash: str, arguments: Mapping[str, str]) -> None:
        root = self._paths.root
        log = self._paths.logs / f"build-{image.name.replace(' ', '-').lower()}.log"
        log.unlink(missing_ok=True)
        command: list[str | Path] = ["docker", "build", "--force-rm", "--label", f"{LABEL}={input_hash}"]
        for argument, value in arguments.items():
            command += ["--build-arg", f"{argument}={value}"]
        command += ["--tag", reference, "--file", root / image.dockerfile, root / image.context]
        try:
            self._docker.commands.run(command, timeout=BUILD_SECONDS, log=log, env=self._docker.builder_environment)
        except CommandError as error:
            msg = f"the image of {image.name} could not be built"
            raise LauncherError(msg, tail(error.output), f"The full log: {log}") from None

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
        msg = f"the image {reference} is not on this machine and cannot be pulled"
        raise LauncherError(
            msg,
            f"Set a present image, or one of a reachable registry, in {self._paths.env_file}:  {setting}=…",
            f"Docker's output: {self._paths.logs / 'pull.log'}",
            exit_code=EXIT_UNAVAILABLE,
        )

    def _label(self, reference: str) -> str:
        try:
            form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
            return self._docker.commands.run(["docker", "image", "inspect", "--format", form, reference]).strip()
        except CommandError:
            return ""


def build_input_hash(root: Path, image: BuiltImage) -> str:
    """Hash of the names and contents of all files that an image is built from: 12 hexadecimal digits."""
    return content_hash(root, (path for name in image.inputs for path in source_files(root / name)))
