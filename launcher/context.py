"""The context of a command: paths, screen, engine, services, and the lock against parallel commands."""

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

from launcher import local_airflow, simulator
from launcher.base_images import BaseImages
from launcher.docker_cli import Docker
from launcher.engine import Engine
from launcher.errors import EXIT_BUSY, LauncherError
from launcher.images import ModelImages, python_versions
from launcher.processes import CommandError, Commands, Services, wait_until
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.models.registry import Registry, load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from launcher.console import Screen
    from launcher.paths import ProjectPaths
    from launcher.signals import StopSignals


@dataclass(frozen=True)
class BackgroundAirflow:
    """The Airflow that `make up` keeps running."""

    port: int
    practice_port: int
    data: str

    @property
    def address(self) -> str:
        """Address of its web page."""
        return f"http://{local_airflow.HOST}:{self.port}"


class CommandContext:
    """One running command in a checkout."""

    def __init__(self, paths: ProjectPaths, screen: Screen, signals: StopSignals) -> None:
        self.paths = paths
        self.screen = screen
        self.signals = signals
        self.commands = Commands()
        self.services = Services(paths.services)
        self.docker = Docker(self.commands)
        # separate commands: the engine is stopped after all others were cancelled
        self.engine = Engine(Docker(Commands()), self.services, paths)
        self._lock: IO[str] | None = None

    @cached_property
    def registry(self) -> Registry:
        """The models and their images.

        Raises
        ------
        LauncherError
            When models.yaml is invalid.
        """
        try:
            return load_registry(self.paths.images_dir)
        except BadInputError as error:
            raise LauncherError(str(error)) from None

    @property
    def pool(self) -> str:
        """Name of the pool that limits the cores used by models."""
        return os.environ.get("NUMERAI_POOL") or "numerai_models"

    def build_images(self, *, may_install: bool) -> None:
        """Provide the base images and build the model images whose inputs changed."""
        pythons = {name: image.python for name, image in self.registry.images.items()}
        images = ModelImages(self.docker, self.paths.images_dir, pythons, self.paths.logs)
        if images.missing():
            with self.screen.step("Base image") as step:
                bases = BaseImages(self.docker, self.paths, may_install=may_install)
                bases.ensure(python_versions(pythons), step)
        with self.screen.step("Model images") as step:
            images.build(step)

    def check_data_volume(self) -> None:
        """Check that the engine's containers share the data directory, unlike those on another machine.

        Raises
        ------
        LauncherError
            When they do not, with both paths and the remedy.
        """
        import docker

        from numerai_pipeline.containers.check_data_volume import any_model_image, check_data_volume
        from numerai_pipeline.core.settings import Settings

        with self.screen.step("Data volume") as step:
            settings = Settings(data_dir=self.paths.data)
            client = docker.from_env().api
            try:
                volume = check_data_volume(settings, client, any_model_image(self.registry, settings, client))
            except BadInputError as error:
                raise LauncherError(str(error)) from None
            finally:
                client.close()
            step.done(f"{volume.local}, shared with the engine's containers")

    def background_airflow(self) -> BackgroundAirflow | None:
        """Find the Airflow that `make up` keeps running, if there is one."""
        record = self.services.find(local_airflow.SERVICE)
        if record is None or record.owner != "up":
            return None
        with suppress(OSError, ValueError, TypeError):
            return BackgroundAirflow(**json.loads(self._background_file.read_text()))
        return None

    def save_background_state(self, background: BackgroundAirflow) -> None:
        """Store the ports and data folder of the Airflow that `make up` keeps running."""
        self._background_file.write_text(json.dumps(background.__dict__))

    @contextmanager
    def exclusive_command(self, command: str) -> Iterator[None]:
        """Lock this checkout against other commands that start Airflow.

        Raises
        ------
        LauncherError
            When another command holds the lock.
        """
        path = self.paths.cache / "command.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                other = self.running_command()
                raise LauncherError(
                    f"make {other.get('command', 'run')} is already running in this checkout"
                    f" (process {other.get('pid', 'unknown')})",
                    "Wait for it, stop it with `make down`, or use another checkout, which is independent.",
                    exit_code=EXIT_BUSY,
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(json.dumps({"pid": os.getpid(), "command": command}))
            lock.flush()
            # an earlier command that was killed could not clean up
            if self.stop_services("run"):
                self.screen.note("Cleaning up", "stopped leftover services of an earlier command that was killed")
            yield
            lock.seek(0)
            lock.truncate()

    def running_command(self) -> dict[str, Any]:
        """Read the name and process id of the command that holds the lock."""
        with suppress(OSError, ValueError):
            found = json.loads((self.paths.cache / "command.lock").read_text())
            return found if isinstance(found, dict) else {}
        return {}

    def stop_running_command(self, timeout: float) -> bool:
        """Stop a running command of this checkout and wait for its end; returns whether there was one."""
        path = self.paths.cache / "command.lock"
        if not path.exists() or _is_unlocked(path):
            return False
        pid = self.running_command().get("pid")
        with suppress(psutil.Error, ProcessLookupError):
            if isinstance(pid, int) and pid != os.getpid():
                os.kill(pid, signal.SIGTERM)
        return wait_until(lambda: _is_unlocked(path), timeout, every=0.2)

    def stop_services(self, owner: str) -> list[str]:
        """Stop Airflow and the simulator, if they were started for this command; returns the stopped services."""
        stoppers, stopped = [], []
        for name, grace in ((local_airflow.SERVICE, local_airflow.STOP_SECONDS), (simulator.SERVICE, 4.0)):
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
        """Remove the containers of this checkout's Airflow, or those of one of its runs; returns their number."""
        if not self.paths.deployment.exists():
            return 0
        labels = {"numerai_deployment": self.paths.deployment.read_text(encoding="ascii").strip()}
        if run_id:
            labels["numerai_run"] = run_id
        with suppress(CommandError, OSError):
            return Docker(Commands()).remove_containers(**labels)
        return 0

    @property
    def _background_file(self) -> Path:
        return self.paths.cache / "kept-up.json"


def _is_unlocked(path: Path) -> bool:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
