"""The repository as a DAG bundle (docs/deployment/dag-bundle.md): from a folder, and from git on a real Airflow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from launcher import local_airflow
from launcher.airflow_api import AirflowApi
from launcher.paths import ProjectPaths
from launcher.processes import Services, wait_until
from launcher.run_monitor import FINAL, task_log_lines
from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.models.images import image_reference
from tests.containers.conftest import TOURNAMENT_IDS, archive
from tests.samples import ROOT, task

__all__ = ["archive"]

DAG = local_airflow.DAG_ID
TIMEOUT = 240.0
LOCAL, GIT = "LocalDagBundle", "GitDagBundle"


def documented(kind: str, **changes: Any) -> str:
    """Give the documented configuration with other paths."""
    blocks = re.findall(
        r"```json\n(.*?)```", (ROOT / "docs" / "deployment" / "dag-bundle.md").read_text(), flags=re.DOTALL
    )
    (found,) = [
        bundles for block in blocks for bundles in [json.loads(block)] if bundles[0]["classpath"].endswith(kind)
    ]
    found[0]["kwargs"] |= changes
    return json.dumps(found)


@dataclass
class Repository:
    """A bare repository, and a checkout in which commits are made."""

    bare: Path
    checkout: Path

    def git(self, *arguments: str) -> str:
        author = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
        command = ["git", *author, "-C", str(self.checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def push(self, tasks: dict[str, Any], message: str) -> str:
        """Commit other models; returns the commit."""
        registry = {"images": {"stub_model": {"description": "A stub."}}, "tasks": tasks}
        (self.checkout / "model_images" / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD")


def stub_task(**entry: Any) -> dict[str, object]:
    parameters = {"IDS": ",".join(TOURNAMENT_IDS), **entry.pop("parameters")}
    return task(image="stub_model", parameters=parameters, **entry)


def tasks_that_print(word: str, *more: str) -> dict[str, Any]:
    """A preprocessing task that waits for a file, a model after it that prints a word, and more models."""
    return {
        "tsne": stub_task(predicts=False, outputs=["tsne/map.txt"], parameters={"MODE": "prepare after go"}),
        "tpot": stub_task(depends_on=["tsne"], parameters={"WORD": word}),
        **{name: stub_task(parameters={}) for name in more},
    }


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The project in git, with the stub model as its only image. Its plugins are broken: Airflow uses other ones."""
    created = Repository(tmp_path / "numerai.git", tmp_path / "work")
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(created.bare)], check=True)
    subprocess.run(
        ["git", "clone", "--quiet", str(created.bare), str(created.checkout)], check=True, capture_output=True
    )
    created.git("checkout", "--quiet", "-B", "main")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("dags", "plugins"):
        shutil.copytree(ROOT / name, created.checkout / name, ignore=ignored)
    (created.checkout / "plugins" / "numerai_pipeline" / "__init__.py").write_text("raise ImportError('not mine')\n")
    stub = ROOT / "tests" / "containers" / "stub_model"
    shutil.copytree(stub, created.checkout / "model_images" / "stub_model", ignore=ignored)
    return created


READ = """
import json, sys
from pathlib import Path
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag
bundle = DagBundlesManager().get_bundle("numerai", *sys.argv[1:])
bundle.initialize()
bag = BundleDagBag(bundle_path=bundle.path, dag_folder=bundle.path, bundle_name=bundle.name, load_op_links=False)
dag = bag.dags["numerai_tournament"]
found = {name: operator.environment["WORD"] for name, operator in dag.task_dict.items()
         if "WORD" in getattr(operator, "environment", {})}
version = bundle.get_current_version()
print(json.dumps({"errors": bag.import_errors, "words": found, "tasks": sorted(dag.task_dict),
                  "version": getattr(version, "version", None)}))
"""


def read_bundle(home: Path, configuration: str, *version: str) -> dict[str, Any]:
    """Read a bundle's DAGs as Airflow does, in a separate process, at its newest version or another."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": configuration,
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, *version], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert read["errors"] == {}
    return read


def test_local_bundle_has_the_models_beside_it_and_no_versions(tmp_path: Path, repository: Repository) -> None:
    repository.push(tasks_that_print("first"), "Begin")
    read = read_bundle(tmp_path / "home", documented(LOCAL, path=str(repository.checkout / "dags")))
    assert read["words"] == {"tpot": "first"}
    assert read["version"] is None


def test_git_bundle_has_the_models_of_its_commit(tmp_path: Path, repository: Repository) -> None:
    first = repository.push(tasks_that_print("first"), "Begin")
    configuration = documented(GIT, repo_url=str(repository.bare))
    assert read_bundle(tmp_path / "home", configuration)["version"] == first
    second = repository.push(tasks_that_print("second", "svm"), "Go on")
    newest = read_bundle(tmp_path / "home", configuration)
    assert (newest["version"], newest["words"], "svm" in newest["tasks"]) == (second, {"tpot": "second"}, True)
    older = read_bundle(tmp_path / "home", configuration, first)
    assert (older["version"], older["words"], "svm" in older["tasks"]) == (first, {"tpot": "first"}, False)


@dataclass
class Running:
    """An Airflow with the repository as its bundle."""

    api: AirflowApi
    data: Path

    def run(self, run_id: str) -> dict[str, Any]:
        return next(run for run in self.api.runs(DAG) if run["dag_run_id"] == run_id)

    def ended(self, run_id: str) -> dict[str, Any]:
        assert wait_until(lambda: self.run(run_id)["state"] in FINAL, TIMEOUT, every=0.5), self.run(run_id)
        return self.run(run_id)

    def log_of(self, run_id: str, name: str) -> str:
        return "\n".join(str(line["event"]) for line in task_log_lines(self.api.log_events(DAG, run_id, name, 1)))

    def tasks(self, run_id: str) -> set[str]:
        return {instance["task_id"] for instance in self.api.task_instances(DAG, run_id)}


@pytest.fixture
def airflow(
    tmp_path: Path, repository: Repository, engine: docker.DockerClient, archive: Path
) -> Iterator[Callable[[], Running]]:
    """Start Airflow, as ``make up`` does, on the git bundle; the image is built before."""
    root = tmp_path / "server"
    shutil.copytree(ROOT / "plugins", root / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    checkout = ProjectPaths(root)
    services = Services(checkout.services)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)

    def start() -> Running:
        images = repository.checkout / "model_images"
        engine.images.build(
            path=str(images),
            dockerfile="stub_model/Dockerfile",
            tag=image_reference(images, "stub_model"),
            rm=True,
            forcerm=True,
        )
        port = local_airflow.choose_port(local_airflow.any_free_port())
        environment = local_airflow.airflow_environment(checkout, port=port, practice_url=None, scheduled=False)
        environment |= {
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": documented(
                GIT, repo_url=str(repository.bare), refresh_interval=1
            ),
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(tmp_path / "bundles"),
            # no such folder: only the bundle is read
            "AIRFLOW__CORE__DAGS_FOLDER": str(root / "nowhere"),
            "NUMERAI_DATA_DIR": str(tmp_path / "data"),
        }
        record = local_airflow.start(services, checkout, environment, "test")
        api = AirflowApi(
            f"http://{local_airflow.HOST}:{port}", local_airflow.USER, local_airflow.password_file(checkout)
        )
        log = local_airflow.log_file(checkout)
        assert api.wait_until_healthy(lambda: record.alive, TIMEOUT), log.read_text()[-4000:]
        api.ensure_pool("numerai_models", 4, "")
        assert wait_until(lambda: api.dag(DAG) is not None, TIMEOUT, every=0.5), api.import_errors()
        return Running(api, tmp_path / "data")

    yield start
    services.stop(local_airflow.SERVICE, grace=local_airflow.STOP_SECONDS)
    if (tmp_path / "data" / ".installation").exists():
        label = f"numerai={installation_id(tmp_path / 'data')}"
        for container in engine.containers.list(all=True, filters={"label": label}):
            container.remove(force=True)


@pytest.mark.end_to_end
@pytest.mark.containers
def test_commit_during_a_run_does_not_change_the_run(
    airflow: Callable[[], Running], repository: Repository, archive: Path, engine: docker.DockerClient
) -> None:
    first = repository.push(tasks_that_print("first"), "Begin")
    running = airflow()
    conf = {"source": "archive", "archive": str(archive)}
    running.api.trigger(DAG, "one", conf)

    def is_waiting() -> bool:
        label = f"numerai={installation_id(running.data)}"
        return bool(engine.containers.list(filters={"label": [label, "numerai.task=tsne"]}))

    assert wait_until(is_waiting, TIMEOUT), running.api.task_instances(DAG, "one")
    second = repository.push(tasks_that_print("second", "svm"), "Go on")
    # until Airflow has parsed the new graph
    assert wait_until(lambda: "svm" in running.api.task_order(DAG), TIMEOUT, every=0.5)
    (workspace,) = (path for path in (running.data / "work" / "tsne").iterdir() if path.is_dir())
    (workspace / "go").touch()

    one = running.ended("one")
    assert (one["state"], one["bundle_version"]) == ("success", first)
    assert "word: first" in running.log_of("one", "tpot")
    assert "svm" not in running.tasks("one")

    running.api.trigger(DAG, "two", conf)
    assert running.run("two")["bundle_version"] == second
    assert "svm" in running.tasks("two")
