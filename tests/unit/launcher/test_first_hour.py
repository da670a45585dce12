"""The errors of the first hour: each names the failure, the value, and the remedy, as the documentation has them."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from docs.first_hour_errors import FIRST_HOUR_ERRORS
from launcher import __main__, debian, local_airflow, up
from launcher.base_images import BaseImages
from launcher.console import Screen, Step
from launcher.context import CommandContext
from launcher.docker_cli import Docker
from launcher.engine import HostInfo, choose_action
from launcher.errors import LauncherError
from launcher.offline_images import interpreters
from launcher.options import parse_options
from launcher.paths import ROOT, ProjectPaths
from launcher.processes import Commands
from launcher.signals import StopSignals
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dataset.archive import extract
from numerai_pipeline.numerai_api.account import Account
from numerai_pipeline.numerai_api.client import ApiClient
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.storage.disk import require_free_space
from tests.recorded.answers import recorded
from tests.recorded.server import RecordedServer
from tests.unit.launcher.conftest import Programs, add_old_python, run_environment

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = "/home/anna/numerai"
USER = HostInfo(
    address="unix:///var/run/docker.sock",
    is_linux=True,
    is_root=False,
    is_debian=True,
    has_dockerd=False,
    has_client=False,
)
DENIED = "permission denied while trying to connect to the Docker daemon socket"


@dataclass
class Machine:
    """A machine on which something fails, and the words that its user reads."""

    root: Path
    programs: Programs
    checkout: Path
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.screen = Screen(Console(record=True, width=1000, force_terminal=False))
        self.monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(ROOT / "model_images"))
        self.context = CommandContext(ProjectPaths(self.root), self.screen, StopSignals())

    def launch(self, title: str, step: Callable[[], object]) -> str:
        """Run a step of the launcher; returns its output, without the step's activity."""
        try:
            with self.screen.step(title):
                step()
        except LauncherError as error:
            __main__.report(self.screen, error)
        return self.output()

    def output(self) -> str:
        """Give the output without the activities of steps."""
        lines = self.screen.console.export_text().splitlines()
        return "\n".join(line for line in lines if not line.endswith(" …"))

    def engine(self, host: HostInfo, answer: str = "", *, may_install: bool = True) -> str:
        return self.launch("Docker engine", lambda: choose_action(host, answer, may_install=may_install))

    def command(self, *arguments: str) -> str:
        """Run a command of the launcher on this machine."""
        self.monkeypatch.setitem(__main__.ACTIONS, "down", fail_with_full_disk)
        self.monkeypatch.setattr(__main__, "Screen", lambda: self.screen)
        self.monkeypatch.setattr(__main__, "ProjectPaths", lambda: self.context.paths)
        self.monkeypatch.setattr(StopSignals, "install", lambda _: None)
        __main__.main(arguments)
        return self.output()

    def airflow(self, free: Callable[[int], bool], cores: int = 2) -> str:
        """Start an Airflow, as far as its environment."""
        load_settings.cache_clear()
        self.monkeypatch.setenv("NUMERAI_CORES", str(cores))
        self.monkeypatch.setattr(local_airflow, "is_free", free)
        self.monkeypatch.setattr(local_airflow, "start", stop_here)
        try:
            up._start_airflow(self.context, port=8080, practice_port=1, owner="run")
        except LauncherError as error:
            __main__.report(self.screen, error)
        except _EnoughError:
            pass
        return self.output()

    def build(self, output: str) -> None:
        """Build an image with a docker command that prints some output and fails."""
        self.programs.add("docker", f"[[ $1 == build ]] && echo {output!r}; exit 1")
        log = self.context.paths.logs / "build-classic.log"
        Docker(Commands()).build("classic", "numerai-classic:1", self.root, self.root / "Dockerfile", {}, log)

    def provide_base_image(self) -> None:
        """Provide a base image without a registry and without a CPython."""
        self.programs.add("docker", "exit 1")
        self.monkeypatch.setattr(interpreters, "_candidates", lambda _version: iter(()))
        bases = BaseImages(Docker(Commands()), self.context.paths, may_install=False)
        bases.ensure({"3.12": ["classic", "networks"]}, Step(self.screen, ""))

    def extract(self, content: bytes | None) -> None:
        """Unpack a file of some content as the classic zip."""
        archive = self.root / "data" / "dataset.zip"
        if content is not None:
            archive.write_bytes(content)
        extract(archive, self.root / "data" / "unpacked")

    def query(self, keys: tuple[str, str] | None, answer: str = "", address: str = "") -> None:
        """Query the account on a server that gives a recorded answer, or at another address."""
        with RecordedServer().running() as server:
            if answer:
                server.give("account", recorded(answer))
            client = ApiClient(address or server.address, timeout=10, policy=RetryPolicy(attempts=1), keys=keys)
            try:
                Account(client).models()
            except PipelineError as error:
                raise type(error)(str(error).replace(client.url, "https://api-tournament.numer.ai")) from None

    def free_space(self, free: int, needed: int) -> None:
        """Require space on a volume that has less."""
        self.monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        require_free_space(self.root / "data", needed, "unpacking dataset.zip")


class _EnoughError(Exception):
    """The step has come as far as the test needs."""


def stop_here(*_: object) -> None:
    raise _EnoughError


def task_error(call: Callable[[], object]) -> str:
    """Give the error of a task, as its log and the report on a run print it."""
    with pytest.raises(PipelineError) as raised:
        call()
    return str(raised.value)


KEYS = ("PUBLIC", "SECRET")


def fail_with_full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


SITUATIONS: dict[str, Callable[[Machine], str]] = {
    "No Docker engine": lambda machine: machine.engine(USER),
    "No Docker engine, and NO_INSTALL=1": lambda machine: machine.engine(
        replace(USER, is_root=True), may_install=False
    ),
    "A Docker engine that does not run": lambda machine: machine.engine(
        replace(USER, has_dockerd=True, has_client=True)
    ),
    "No rights on the socket": lambda machine: machine.engine(USER, DENIED),
    "The port is taken": lambda machine: machine.airflow(lambda port: port > 8080),
    "A hundred ports are taken": lambda machine: machine.airflow(lambda _: False),
    "The disk is full, in a step of the launcher": lambda machine: machine.command("down"),
    "The disk is full, in a task": lambda machine: task_error(
        lambda: machine.free_space(12_000_000, 1_000_000_000 - 2**26)
    ),
    "No network, in a task": lambda machine: task_error(lambda: machine.query(KEYS, address="http://127.0.0.1:1")),
    "No network, for Debian's packages": lambda machine: machine.launch(
        "Docker engine",
        lambda: debian.install(machine.context.commands, ("docker.io",), machine.context.paths.logs / "apt.log"),
    ),
    "No network, for the base images": lambda machine: machine.launch("Base image", machine.provide_base_image),
    "Another file than a zip": lambda machine: task_error(lambda: machine.extract(b"<!DOCTYPE html><html>")),
    "A zip that does not exist": lambda machine: machine.command("run", f"ARCHIVE={machine.root}/dataset.zip"),
    "A zip of which the end is missing": lambda machine: task_error(
        lambda: machine.extract(b"PK\x03\x04" + 996 * b".")
    ),
    "Wrong keys": lambda machine: task_error(lambda: machine.query(KEYS, "error_not_authenticated")),
    "No keys": lambda machine: task_error(lambda: machine.query(None)),
    "A wrong parameter": lambda machine: machine.launch(
        "", lambda: parse_options("run", {"MODELS": "svn", "AUTOML_MINUTES": "0"}, ("svm", "xgboost"))
    ),
    "An unknown parameter": lambda machine: machine.command("up", "PROT=8081"),
    "An image that cannot be built": lambda machine: machine.launch(
        "Model images", lambda: machine.build("ERROR: Could not find a version that satisfies numpy==2.4")
    ),
    "A machine with one core": lambda machine: machine.airflow(lambda _: True, cores=1),
    "A Python that is too old": lambda machine: run_environment(machine.checkout, "local").stderr,
}


@pytest.fixture
def machine(tmp_path: Path, programs: Programs, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose user has a checkout, an old Python, one core, and no network."""
    (tmp_path / "root" / "data").mkdir(parents=True)
    add_old_python(programs, "3.9.18", debian=True)
    programs.add("apt-get", "[[ $1 != install ]] || { echo 'E: Unable to fetch some archives'; exit 100; }")
    return Machine(tmp_path / "root", programs, checkout, monkeypatch)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_first_hour_error_has_the_documented_words(machine: Machine, situation: str) -> None:
    output = SITUATIONS[situation](machine)
    for place in (machine.root, machine.checkout):
        output = output.replace(str(place), HOME)
    assert output.strip("\n") == FIRST_HOUR_ERRORS[situation]


def test_first_hour_errors_of_the_documentation_are_all_tested() -> None:
    assert list(FIRST_HOUR_ERRORS) == list(SITUATIONS)
