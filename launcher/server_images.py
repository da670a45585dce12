"""The images of a server: Airflow with the bundle inside, the socket proxy, and the database's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.base_images import BaseImages, python_image
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, end_of
from numerai_pipeline.model_images import PYTHON, content_hash, source_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from launcher.checkout import Checkout
    from launcher.console import Step
    from launcher.docker_cli import Docker

LABEL = "numerai.made-from"
BUILD_SECONDS = 3600.0


@dataclass(frozen=True)
class OwnImage:
    """An image that is built from this checkout.

    Attributes
    ----------
    name
        What it is called in messages.
    setting
        The setting that names it.
    context
        The build context, relative to the checkout.
    dockerfile
        Relative to the checkout.
    inputs
        What of the checkout goes into it.
    """

    name: str
    setting: str
    context: str
    dockerfile: str
    inputs: tuple[str, ...]


AIRFLOW = OwnImage(
    "Airflow",
    "AIRFLOW_IMAGE",
    ".",
    "server/airflow/Dockerfile",
    (".dockerignore", "dags", "model_images", "plugins", "practice", "pyproject.toml", "server/airflow", "uv.lock"),
)
SOCKET_PROXY = OwnImage(
    "socket proxy",
    "SOCKET_PROXY_IMAGE",
    "server/socket_proxy",
    "server/socket_proxy/Dockerfile",
    ("server/socket_proxy",),
)
# images of others, and the profile in which they are needed
FOREIGN = {"POSTGRES_IMAGE": "", "TLS_IMAGE": "tls", "REDIS_IMAGE": "celery"}


class ServerImages:
    """Sees to it that every image a server needs is on this machine."""

    def __init__(self, docker: Docker, checkout: Checkout, settings: Mapping[str, str], *, may_install: bool) -> None:
        self._docker = docker
        self._checkout = checkout
        self._settings = settings
        self._bases = BaseImages(docker, checkout, may_install=may_install)

    def ensure(self, step: Step, *, foreign: bool = True) -> None:
        """Build what is ours and changed, pull what is not.

        Parameters
        ----------
        step
            Where to say what is going on.
        foreign
            Whether the images of others are needed: a worker does without.

        Raises
        ------
        LauncherError
            Naming the image that cannot be had, and what to do.
        """
        outcomes = [self._ensure_own(image, step) for image in (AIRFLOW, SOCKET_PROXY)]
        profiles = self._settings.get("COMPOSE_PROFILES", "").split(",")
        for setting, profile in FOREIGN.items() if foreign else ():
            if not profile or profile in profiles:
                outcomes.append(self._ensure_foreign(setting, step))
        step.done(", ".join(outcomes))

    def _ensure_own(self, image: OwnImage, step: Step) -> str:
        reference = self._settings[image.setting]
        if "/" in reference:
            return self._ensure_foreign(image.setting, step)
        made_from = made_from_hash(self._checkout.root, image)
        if self._label(reference) == made_from:
            return f"{reference} unchanged"
        arguments = {}
        if image is AIRFLOW:
            self._bases.ensure({PYTHON: [reference]}, step)
            arguments["PYTHON_IMAGE"] = python_image(PYTHON)
        else:
            self._bases.ensure_debian(step)
        step.update(f"building {reference}")
        self._build(image, reference, made_from, arguments)
        return f"{reference} built"

    def _build(self, image: OwnImage, reference: str, made_from: str, arguments: Mapping[str, str]) -> None:
        root = self._checkout.root
        log = self._checkout.logs / f"build-{image.name.replace(' ', '-').lower()}.log"
        log.unlink(missing_ok=True)
        words: list[str | Path] = ["docker", "build", "--force-rm", "--label", f"{LABEL}={made_from}"]
        for argument, value in arguments.items():
            words += ["--build-arg", f"{argument}={value}"]
        words += ["--tag", reference, "--file", root / image.dockerfile, root / image.context]
        try:
            self._docker.commands.run(words, timeout=BUILD_SECONDS, log=log, env=self._docker.builder_environment)
        except CommandError as error:
            msg = f"the image of {image.name} could not be built"
            raise LauncherError(msg, end_of(error.output), f"The full log: {log}") from None

    def _ensure_foreign(self, setting: str, step: Step) -> str:
        reference = self._settings.get(setting, "")
        if not reference:
            msg = f"{setting} is not set in {self._checkout.env_file}"
            raise LauncherError(msg, ".env.example has its usual value.")
        if self._docker.has_image(reference):
            return f"{reference} is here"
        step.update(f"pulling {reference}")
        if self._bases.pull(reference):
            return f"{reference} pulled"
        msg = f"the image {reference} is not on this machine and cannot be pulled"
        raise LauncherError(
            msg,
            f"Name one that is here, or a registry that answers, in {self._checkout.env_file}:  {setting}=…",
            f"What docker said: {self._checkout.logs / 'pull.log'}",
            exit_code=EXIT_UNAVAILABLE,
        )

    def _label(self, reference: str) -> str:
        try:
            form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
            return self._docker.commands.run(["docker", "image", "inspect", "--format", form, reference]).strip()
        except CommandError:
            return ""


def made_from_hash(root: Path, image: OwnImage) -> str:
    """Hash of all files an image is built from, by name and content: 12 hexadecimal digits."""
    return content_hash(root, (path for name in image.inputs for path in source_files(root / name)))
