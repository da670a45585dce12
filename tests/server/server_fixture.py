"""A server like its users': a separate checkout, set up by ``make server``, with toys in place of the models."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import yaml

from launcher.airflow_api import AirflowApi
from launcher.processes import wait_until
from launcher.server_settings import read_settings
from tests.containers.conftest import TOURNAMENT_IDS
from tests.samples import ROOT, task

DAG_ID = "numerai_tournament"
OFFLINE_IMAGES = {
    "POSTGRES_IMAGE": "numerai-stand-in-postgres",
    "REDIS_IMAGE": "numerai-stand-in-redis",
    "TLS_IMAGE": "numerai-stand-in-nginx",
}
"""Setting → the image that replaces the public one, built from the folder of the setting's name."""
COMMAND_SECONDS = 1200
RUN_SECONDS = 900


def build_offline_images() -> None:
    """Build replacements of third-party images from Debian's packages."""
    for setting, name in OFFLINE_IMAGES.items():
        folder = (
            ROOT
            / "tests"
            / "server"
            / "offline_images"
            / setting.split("_", maxsplit=1)[0].lower().replace("tls", "nginx")
        )
        subprocess.run(
            ["docker", "build", "--force-rm", "--quiet", "--tag", name, folder],
            check=True,
            capture_output=True,
            env=os.environ | {"DOCKER_BUILDKIT": "0"},
        )


def copy_checkout(target: Path) -> None:
    """Make a checkout with the present files, including uncommitted ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    # the environment takes minutes to create, and is the same
    (target / ".venv").symlink_to((ROOT / ".venv").resolve())


def write_archive(path: Path) -> None:
    """Write a small zip of the classic layout."""
    generator = random.Random(5)
    features = [f"feature{number}" for number in range(1, 6)]

    def table(ids: list[str], eras: list[str], kinds: list[str]) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "era", "data_type", *features, "target"])
        for number, (row_id, era, kind) in enumerate(zip(ids, eras, kinds, strict=True)):
            row = [round(generator.random(), 5) for _ in features]
            writer.writerow([row_id, era, kind, *row, number % 2 if kind in ("train", "validation") else ""])
        return text.getvalue()

    count = len(TOURNAMENT_IDS)
    kinds = ["validation"] * (count - 20) + ["test"] * 10 + ["live"] * 10
    eras = [f"era{9 + number // 20}" if kind == "validation" else "eraX" for number, kind in enumerate(kinds)]
    training = [f"t{number:04d}" for number in range(80)]
    with zipfile.ZipFile(path, "w") as zipped:
        rows = table(training, [f"era{number // 10 + 1}" for number in range(80)], ["train"] * 80)
        zipped.writestr("numerai_training_data.csv", rows)
        zipped.writestr("numerai_tournament_data.csv", table(TOURNAMENT_IDS, eras, kinds))


@dataclass
class Server:
    """A server, with the operations that tests need."""

    root: Path
    events: IO[str]

    @property
    def data(self) -> Path:
        return self.root / "server-data"

    @property
    def archive(self) -> Path:
        return self.data / "numerai_dataset.zip"

    @property
    def settings(self) -> dict[str, str]:
        return read_settings((self.root / ".env").read_text())

    @cached_property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "AIRFLOW"))
        }
        # Airflow's containers have the toys at the same path, since they are in the data directory
        return inherited | {"NUMERAI_IMAGES_DIR": str(self.data / "model_images"), "NUMERAI_DATA_DIR": str(self.data)}

    @property
    def address(self) -> str:
        return f"http://{self.settings['BIND']}:{self.settings['PORT']}"

    def add_toys(self, tasks: dict[str, dict[str, str]], **memory: int) -> None:
        """Make a registry of toys in the data directory, each with its parameters, and some with more memory."""
        folder = self.data / "model_images"
        for name in ("base", "contract"):
            shutil.copytree(ROOT / "model_images" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "containers" / "stub_model", folder / "stub_model")
        entries = {
            name: task(
                image="stub_model",
                time_limit=60,
                memory=memory.get(name, 512),
                parameters={"IDS": ",".join(TOURNAMENT_IDS), **parameters},
            )
            for name, parameters in tasks.items()
        }
        self.write_registry(entries)

    def write_registry(self, tasks: dict[str, dict[str, object]]) -> None:
        """Replace the tasks of the registry."""
        registry = {"images": {"stub_model": {"description": "A stub."}}, "tasks": tasks}
        (self.data / "model_images" / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))

    def change_settings(self, changed: dict[str, str]) -> None:
        """Change .env and restart the server."""
        env_file = self.root / ".env"
        lines = [line for line in env_file.read_text().splitlines() if line.partition("=")[0] not in changed]
        env_file.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in changed.items())]) + "\n")
        self.make("server")

    def make_server(self, settings: dict[str, str]) -> str:
        """Set the server up with these settings in addition to the tests' usual ones; return make's output."""
        usual = {**OFFLINE_IMAGES, "NUMERAI_SCHEDULE": "off", "NUMERAI_HOUSEKEEPING": "false"}
        return self.make("server", *(f"{name}={value}" for name, value in {**usual, **settings}.items())).stdout

    def make(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run make."""
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def compose(self, *arguments: str) -> str:
        """Run docker-compose with only the settings of .env."""
        done = subprocess.run(
            ["docker-compose", *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def api(self) -> AirflowApi:
        """A client of the administrator."""
        return self.api_of(self.settings["ADMIN_USER"], self.settings["ADMIN_PASSWORD"])

    def api_of(self, user: str, password: str) -> AirflowApi:
        file = self.root / ".cache" / f"{user}.json"
        file.write_text(json.dumps({user: password}))
        return AirflowApi(self.address, user, file, retry_seconds=180)

    def services(self) -> dict[str, str]:
        """Give each service's state: its health, or its exit code."""
        project = self.settings["COMPOSE_PROJECT_NAME"]
        form = '{{.Label "com.docker.compose.service"}}\t{{.Status}}'
        command = ["docker", "ps", "--all", "--format", form, "--filter", f"label=com.docker.compose.project={project}"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return dict(line.split("\t", 1) for line in listed.splitlines())

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            states = self.services()
            states.pop("airflow-init", None)
            return bool(states) and all("(healthy)" in state for state in states.values())

        assert wait_until(healthy, 600, every=1), self.services()
        # an ended scheduler counts as alive for a while: query the present one
        assert self.api.wait_until_healthy(lambda: True, 300)

    def trigger(self, run: str, **conf: Any) -> None:
        self.api.trigger(DAG_ID, run, {"source": "archive", "archive": str(self.archive), **conf})

    def wait_for_end(self, run: str) -> str:
        api = self.api
        assert wait_until(lambda: api.run_state(DAG_ID, run) in ("success", "failed"), RUN_SECONDS, every=1), (
            api.task_instances(DAG_ID, run)
        )
        return api.run_state(DAG_ID, run)

    def task(self, run: str, name: str) -> dict[str, Any]:
        return next(each for each in self.api.task_instances(DAG_ID, run) if each["task_id"] == name)

    def containers(self, run: str, *, of_task: str = "") -> list[str]:
        """List the ids of a run's model containers, whether they run or not."""
        filters = [f"label=numerai.run={run}"] + ([f"label=numerai.task={of_task}"] if of_task else [])
        command = ["docker", "ps", "--all", "--quiet", "--no-trunc"]
        command += [word for each in filters for word in ("--filter", each)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    def running_container(self, run: str, of_task: str) -> str:
        assert wait_until(lambda: bool(self.containers(run, of_task=of_task)), RUN_SECONDS, every=0.5)
        return self.containers(run, of_task=of_task)[0]

    def created_containers(self, run: str) -> list[str]:
        """List the tasks for which a container was created in a run, one entry per container."""
        self.events.seek(0)
        attributes = [json.loads(line)["Actor"]["Attributes"] for line in self.events if line.strip()]
        return sorted(each["numerai.task"] for each in attributes if each.get("numerai.run") == run)

    def release(self, container: str) -> None:
        """Let a waiting toy continue."""
        subprocess.run(["docker", "exec", container, "touch", "/tmp/go"], check=True, capture_output=True)  # noqa: S108

    def destroy(self) -> None:
        """Remove the server with all its volumes."""
        if (self.root / ".env").exists():
            subprocess.run(
                ["docker-compose", "down", "--volumes", "--remove-orphans"],
                cwd=self.root,
                capture_output=True,
                check=False,
                timeout=300,
            )

    def remove_model_containers(self) -> None:
        deployment = self.data / ".installation"
        if deployment.exists():
            label = f"label=numerai={deployment.read_text().strip()}"
            listed = subprocess.run(
                ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
            )
            if listed.stdout.split():
                subprocess.run(["docker", "rm", "-f", *listed.stdout.split()], capture_output=True, check=False)

    def remove_images(self) -> None:
        settings = self.settings if (self.root / ".env").exists() else {}
        # the toy's stays: other servers' toys are the same
        names = [settings.get("AIRFLOW_IMAGE", ""), settings.get("SOCKET_PROXY_IMAGE", "")]
        subprocess.run(["docker", "rmi", *filter(None, names)], capture_output=True, check=False)


@contextmanager
def set_up(root: Path) -> Iterator[Server]:
    """Make a checkout for a server, and remove everything in the end."""
    build_offline_images()
    copy_checkout(root)
    with (root.parent / "events").open("w+") as events:
        form = ["--format", "{{json .}}", "--filter", "event=create", "--filter", "label=numerai.run"]
        watcher = subprocess.Popen(["docker", "events", *form], stdout=events, text=True)
        prepared = Server(root, events)
        try:
            prepared.data.mkdir()
            write_archive(prepared.archive)
            yield prepared
        finally:
            watcher.terminate()
            watcher.wait()
            prepared.remove_model_containers()
            prepared.destroy()
            prepared.remove_images()
