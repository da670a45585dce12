"""What every command works with, and how all of it is given back at the end, whatever the end is."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import psutil

from launcher import airflow_home, practice_season
from launcher.base_images import BaseImages
from launcher.docker_cli import Docker
from launcher.engine import Engine
from launcher.errors import EXIT_BUSY, LauncherError
from launcher.images import ModelImages, python_versions
from launcher.processes import CommandError, Commands, Services, wait_until
from numerai_pipeline.data_volume import installation_id
from numerai_pipeline.errors import BadInputError
from numerai_pipeline.model_registry import Registry, load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from launcher.checkout import Checkout
    from launcher.console import Screen
    from launcher.signals import StopSignals


@dataclass(frozen=True)
class KeptUp:
    """The Airflow that `make up` keeps running."""

    port: int
    practice_port: int
    data: str

    @property
    def address(self) -> str:
        """Address of its web page."""
        return f"http://{airflow_home.HOST}:{self.port}"


class Session:
    """One command at work in a checkout."""

    def __init__(self, checkout: Checkout, screen: Screen, signals: StopSignals) -> None:
        self.checkout = checkout
        self.screen = screen
        self.signals = signals
        self.commands = Commands()
        self.services = Services(checkout.services)
        self.docker = Docker(self.commands)
        # the engine is asked and stopped after everything else was cancelled
        self.engine = Engine(Docker(Commands()), self.services, checkout)
        self._lock: IO[str] | None = None

    @cached_property
    def registry(self) -> Registry:
        """The models and their images.

        Raises
        ------
        LauncherError
            When models.yaml is not as it should be.
        """
        try:
            return load_registry(self.checkout.images_dir)
        except BadInputError as error:
            raise LauncherError(str(error)) from None

    @property
    def pool(self) -> str:
        """Name of the pool that bounds the models' load."""
        return os.environ.get("NUMERAI_POOL") or "numerai_models"

    def build_images(self, *, may_install: bool) -> None:
        """Provide the base images and build the model images whose inputs changed."""
        pythons = {name: image.python for name, image in self.registry.images.items()}
        images = ModelImages(self.docker, self.checkout.images_dir, pythons, self.checkout.logs)
        if images.missing():
            with self.screen.step("Base image") as step:
                bases = BaseImages(self.docker, self.checkout, may_install=may_install)
                bases.ensure(python_versions(pythons), step)
        with self.screen.step("Model images") as step:
            images.build(step)

    def check_data_volume(self) -> None:
        """See whether the engine's containers share the data directory: one on another machine does not.

        Raises
        ------
        LauncherError
            When they do not: both paths, and what to do.
        """
        import docker

        from numerai_pipeline.check_data_volume import any_model_image, check_data_volume
        from numerai_pipeline.settings import Settings

        with self.screen.step("Data volume") as step:
            settings = Settings(data_dir=self.checkout.data)
            client = docker.from_env().api
            try:
                volume = check_data_volume(settings, client, any_model_image(self.registry, settings, client))
            except BadInputError as error:
                raise LauncherError(str(error)) from None
            finally:
                client.close()
            step.done(f"{volume.local}, shared with the engine's containers")

    def kept_up(self) -> KeptUp | None:
        """Find the Airflow that `make up` keeps running, if it does."""
        record = self.services.find(airflow_home.SERVICE)
        if record is None or record.owner != "up":
            return None
        with suppress(OSError, ValueError, TypeError):
            return KeptUp(**json.loads(self._kept_up_file.read_text()))
        return None

    def keep_up(self, kept_up: KeptUp) -> None:
        """Remember what `make up` keeps running."""
        self._kept_up_file.write_text(json.dumps(kept_up.__dict__))

    @contextmanager
    def only_one(self, command: str) -> Iterator[None]:
        """Let no two commands that start Airflow work in this checkout at the same time.

        Raises
        ------
        LauncherError
            When another is at it.
        """
        path = self.checkout.cache / "command.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                other = self.running_command()
                raise LauncherError(
                    f"make {other.get('command', 'run')} is already at work in this checkout"
                    f" (process {other.get('pid', 'unknown')})",
                    "Wait for it, stop it with `make down`, or use another checkout: they do not disturb each other.",
                    exit_code=EXIT_BUSY,
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(json.dumps({"pid": os.getpid(), "command": command}))
            lock.flush()
            # an earlier command that was killed could not tidy up
            if self.stop_services("run"):
                self.screen.note("Tidying up", "stopped what an earlier command, which was killed, had left running")
            yield
            lock.seek(0)
            lock.truncate()

    def running_command(self) -> dict[str, Any]:
        """Read what the command that holds the lock wrote down about itself."""
        with suppress(OSError, ValueError):
            found = json.loads((self.checkout.cache / "command.lock").read_text())
            return found if isinstance(found, dict) else {}
        return {}

    def stop_running_command(self, patience: float) -> bool:
        """Tell a command that is at work in this checkout to stop, and wait for it; says whether there was one."""
        path = self.checkout.cache / "command.lock"
        if not path.exists() or _is_unlocked(path):
            return False
        pid = self.running_command().get("pid")
        with suppress(psutil.Error, ProcessLookupError):
            if isinstance(pid, int) and pid != os.getpid():
                os.kill(pid, signal.SIGTERM)
        return wait_until(lambda: _is_unlocked(path), patience, every=0.2)

    def stop_services(self, owner: str) -> list[str]:
        """Stop Airflow and the practice season, if they serve this command; returns what was stopped."""
        stoppers, stopped = [], []
        for name, grace in ((airflow_home.SERVICE, airflow_home.STOP_SECONDS), (practice_season.SERVICE, 4.0)):
            record = self.services.find(name)
            if record is not None and record.owner == owner:
                stopped.append(name)
                stoppers.append(threading.Thread(target=self.services.stop, args=(name,), kwargs={"grace": grace}))
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        return stopped

    def remove_containers(self, run_id: str = "") -> int:
        """Remove this installation's containers, or those of one run; returns how many there were."""
        if not (self.checkout.data / ".installation").exists():
            return 0
        labels = {"numerai": installation_id(self.checkout.data)}
        if run_id:
            labels["numerai_run"] = run_id
        with suppress(CommandError, OSError):
            return Docker(Commands()).remove_containers(**labels)
        return 0

    @property
    def _kept_up_file(self) -> Path:
        return self.checkout.cache / "kept-up.json"


def _is_unlocked(path: Path) -> bool:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
