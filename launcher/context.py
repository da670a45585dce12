"""The context of a command, and the lifecycle of all commands: lock, engine, work, and the end of everything."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psutil

from launcher import local_airflow, simulator
from launcher.base_images import BaseImages
from launcher.docker_cli import Docker
from launcher.engine import Engine
from launcher.errors import EXIT_BUSY, LauncherError
from launcher.images import ModelImages, python_versions
from launcher.processes import CommandError, Commands, Services, in_parallel, wait_until
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.models.registry import Registry, load_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from launcher.console import Screen
    from launcher.options import Options
    from launcher.paths import ProjectPaths
    from launcher.signals import StopSignals

# service → its title, and the seconds that it may take to stop
SERVICES = {
    local_airflow.SERVICE: ("Airflow", local_airflow.STOP_SECONDS),
    simulator.SERVICE: ("the simulator", 4.0),
}


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
        self._lock_file = paths.cache / "command.lock"

    @cached_property
    def registry(self) -> Registry:
        """The models and their images."""
        return load_registry(self.paths.images_dir)

    @contextmanager
    def lifecycle(self, command: str, options: Options, *, exclusive: bool = True) -> Iterator[ExitStack]:
        """Lock this checkout, provide the engine, and in the end stop what the command started.

        Yields the clean-up, whose callbacks no signal interrupts; `keep_running` cancels it.

        Parameters
        ----------
        command, options
            The command.
        exclusive
            Whether no other such command may run in this checkout: those that start Airflow, or a server.
        """
        with self._exclusive(command) if exclusive else ExitStack(), ExitStack() as cleanup:
            try:
                cleanup.callback(self._release_engine)
                with self.screen.step("Docker engine") as step:
                    self.engine.ensure(step, may_install=options.may_install)
                yield cleanup
            finally:
                self.signals.ignore_signals()

    def keep_running(self, cleanup: ExitStack) -> None:
        """Keep the engine and all services running after this command."""
        self.engine.keep_running()
        cleanup.pop_all()

    def _release_engine(self) -> None:
        if report := self.engine.stop(also_kept=False):
            self.screen.success("Stopped", report.removeprefix("stopped "))

    def run_parallel(self, work: Sequence[Callable[[], None]]) -> None:
        """Run several functions in parallel; the first failure, or a stop, ends the others and is raised."""
        results: queue.Queue[BaseException | None] = queue.Queue()

        def do(task: Callable[[], None]) -> None:
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                results.put(error)
            else:
                results.put(None)

        for task in work:
            # daemons: a thread that waits for a stopped service must not keep the command from ending
            threading.Thread(target=do, args=(task,), daemon=True).start()
        try:
            for _ in work:
                if error := results.get():
                    raise error  # noqa: TRY301 - the handler below is for signals as well
        except BaseException:
            with self.signals.signals_ignored():
                self.screen.close()
                self.services.stop_accepting()
                self.commands.cancel()
            raise

    def build_images(self, options: Options) -> None:
        """Provide the base images and build the model images whose inputs changed."""
        pythons = {name: image.python for name, image in self.registry.images.items()}
        images = ModelImages(self.docker, self.paths.images_dir, pythons, self.paths.logs)
        if images.missing():
            with self.screen.step("Base image") as step:
                bases = BaseImages(self.docker, self.paths, may_install=options.may_install)
                bases.ensure(python_versions(pythons), step)
        with self.screen.step("Model images") as step:
            images.build(step)

    def check_data_volume(self) -> None:
        """Check that the engine's containers share the data directory, unlike those on another machine."""
        import docker

        from numerai_pipeline.containers.check_data_volume import any_model_image, check_data_volume
        from numerai_pipeline.core.settings import Settings

        with self.screen.step("Data volume") as step:
            settings = Settings(data_dir=self.paths.data)
            client = docker.from_env().api
            try:
                volume = check_data_volume(settings, client, any_model_image(self.registry, settings, client))
            except PipelineError as error:
                raise LauncherError(str(error)) from None
            finally:
                client.close()
            step.done(f"{volume.local}, shared with the engine's containers")

    @contextmanager
    def _exclusive(self, command: str) -> Iterator[None]:
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                other = self._running_command()
                raise LauncherError(
                    f"make {other.get('command', 'run')} is already running in this checkout"
                    f" (process {other.get('pid', 'unknown')})",
                    "Wait for it, stop it with `make down`, or use another checkout, which is independent.",
                    exit_code=EXIT_BUSY,
                ) from None
            lock.truncate(0)
            lock.write(json.dumps({"pid": os.getpid(), "command": command}))
            lock.flush()
            # an earlier command that was killed could not clean up
            if self._stop_services("run"):
                self.screen.note("Cleaning up", "stopped leftover services of an earlier command that was killed")
            yield
            lock.truncate(0)

    def _running_command(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            return dict(json.loads(self._lock_file.read_text()))
        return {}

    def stop_running_command(self, timeout: float) -> bool:
        """Stop a running command of this checkout and wait for its end; returns whether there was one."""

        def is_unlocked() -> bool:
            with self._lock_file.open("a+") as lock, suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not self._lock_file.exists() or is_unlocked():
            return False
        pid = self._running_command().get("pid")
        with suppress(psutil.Error, ProcessLookupError):
            if isinstance(pid, int) and pid != os.getpid():
                os.kill(pid, signal.SIGTERM)
        return wait_until(is_unlocked, timeout, every=0.2)

    def stop_everything(self, *owners: str) -> list[str]:
        """Stop builds, the services of these owners and this checkout's containers; returns what was stopped."""
        self.services.stop_accepting()
        self.commands.cancel()
        stopped = [name for owner in owners for name in self._stop_services(owner)]
        removed = self.remove_containers()
        return [*stopped, *([f"{removed} containers"] if removed else [])]

    def _stop_services(self, owner: str) -> list[str]:
        names = [name for name in SERVICES if (record := self.services.find(name)) and record.owner == owner]
        in_parallel(lambda name: self.services.stop(name, grace=SERVICES[name][1]), names)
        return [SERVICES[name][0] for name in names]

    def remove_containers(self, run_id: str = "") -> int:
        """Remove the containers of this checkout's Airflow, or those of one of its runs; returns their number."""
        if not self.paths.deployment.exists():
            return 0
        labels = [f"numerai.deployment={self.paths.deployment.read_text(encoding='ascii').strip()}"]
        with suppress(CommandError, OSError):
            return Docker(Commands()).remove_containers(*labels, *([f"numerai.run={run_id}"] if run_id else []))
        return 0
