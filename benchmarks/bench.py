"""Runs the tasks of the registry on tables, each as a pipeline run does, and measures them.

A task runs in its container; or, for images that are listed with a Python interpreter, as a process of this machine,
with the operations and the contract package of the folder of images.
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import docker

from numerai_pipeline.containers.limits import sandbox_host_config
from numerai_pipeline.containers.mounts import CONTAINER_DATA, workspace_mounts
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.settings import machine_cores
from numerai_pipeline.storage.manifests import manifest_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numerai_pipeline.models.registry import ModelSpec, Registry

USER = "10001:10001"
TABLES = ("training", "validation", "live")
SEED = 67
TARGET_DAYS, EMBARGO = 20, 4
CORES = machine_cores()
MIB = 2**20


class Measured(NamedTuple):
    """A task's container: its exit code and its cost.

    Attributes
    ----------
    exit_code : int
    seconds : float
        From the start of the container to its end.
    processor_seconds : float
        Of all its processes.
    memory : float
        Largest sum of anonymous memory and tmpfs, without the page cache, MiB; sampled once a second. Of a process of
        this machine, the peak of its resident memory.
    cores, limit : int
        Its limits: cores, and memory in MiB.
    """

    exit_code: int
    seconds: float
    processor_seconds: float
    memory: float
    cores: int
    limit: int


class Bench:
    """Runs the tasks of a registry on the tables of a folder, and keeps their outputs for the tasks after them.

    Parameters
    ----------
    directory
        For the outputs; each task has a folder in it.
    tables
        The folder of the three tables.
    registry
        The tasks.
    automl_minutes
        Time of a search.
    memory
        Memory limit of every task, MiB; None for that of ``models.yaml``.
    cores
        Limit of every task; None for that of ``models.yaml``.
    embargo
        Of every task.
    pythons
        Image → the interpreter that runs its operations instead of a container.
    """

    def __init__(
        self,
        directory: Path,
        tables: Path,
        registry: Registry,
        *,
        automl_minutes: float = 10,
        memory: int | None = None,
        cores: int | None = CORES,
        embargo: int = EMBARGO,
        pythons: Mapping[str, Path] | None = None,
    ) -> None:
        self._directory, self._tables, self._registry = directory, tables, registry
        self._search_seconds, self._embargo = round(automl_minutes * 60), embargo
        self._memory, self._cores, self._pythons = memory, cores, pythons or {}

    @cached_property
    def _engine(self) -> docker.DockerClient:
        return docker.from_env(timeout=24 * 3600)

    def run(self, spec: ModelSpec, parameters: Mapping[str, str] | None = None) -> Measured:
        """Run a task to its end, with further environment variables."""
        directory = self.directory(spec.name)
        shutil.rmtree(directory, ignore_errors=True)
        workspace = Workspace(directory, self._inputs(spec))
        directory.mkdir(parents=True)
        limited = replace(
            spec,
            memory=self._memory or spec.memory,
            cores=spec.cores_of(CORES) if self._cores is None else self._cores,
            parameters=spec.parameters | dict(parameters or {}),
        )
        if spec.image in self._pythons:
            return self._run_process(limited, workspace, self._pythons[spec.image])
        return self._run_container(limited, workspace)

    def directory(self, task: str) -> Path:
        """Return the folder of a task's outputs, ``/data`` for its container."""
        return self._directory / task

    def last_line(self, task: str) -> str:
        """Return the last line of a task's log."""
        return self._log(task).read_text(errors="replace").strip().rpartition("\n")[2]

    def _log(self, task: str) -> Path:
        return self._directory / f"{task}.log"

    def _run_container(self, spec: ModelSpec, workspace: Workspace) -> Measured:
        workspace.prepare(USER)
        client, cores = self._engine.api, spec.cores_of(CORES)
        mounts = workspace_mounts(workspace)
        identifier = client.create_container(
            self._registry.image_names[spec.image],
            environment=self._environment(spec),
            user=USER,
            host_config=sandbox_host_config(client, mounts, memory=spec.memory, cores=cores),
        )["Id"]
        try:
            began = time.monotonic()
            client.start(identifier)
            sampler = Sampler(client, identifier)
            code = client.wait(identifier)["StatusCode"]
            seconds = time.monotonic() - began
            processor_seconds, memory = sampler.result()
            self._log(spec.name).write_bytes(client.logs(identifier))
        finally:
            client.remove_container(identifier, force=True)
        return Measured(code, seconds, processor_seconds, memory, cores, spec.memory)

    def _run_process(self, spec: ModelSpec, workspace: Workspace, python: Path) -> Measured:
        workspace.prepare(f"{os.getuid()}:{os.getgid()}")
        for name, source in workspace.inputs.items():
            target = workspace.directory / name
            if target.is_dir():
                target.rmdir()
            target.unlink(missing_ok=True)
            target.symlink_to(source.resolve())
        images = self._registry.directory.resolve()
        data = str(CONTAINER_DATA)
        environment = {
            name: value.replace(data, str(workspace.directory.resolve()), 1) if value.startswith(data) else value
            for name, value in self._environment(spec).items()
        }
        environment |= {
            **dockerfile_environment(images / "base" / "Dockerfile"),
            **dockerfile_environment(images / spec.image / "Dockerfile"),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(images / "contract" / "src"),
            "OPERATIONS_DIR": str(images / spec.image),
        }
        began = time.monotonic()
        with self._log(spec.name).open("wb") as log:
            process = subprocess.Popen(
                [python, "-m", "numerai_contract"], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, processor_seconds = time.monotonic() - began, used.ru_utime + used.ru_stime
        memory = used.ru_maxrss / 1_024
        return Measured(process.returncode, seconds, processor_seconds, memory, spec.cores_of(CORES), spec.memory)

    def _environment(self, spec: ModelSpec) -> dict[str, str]:
        # it imports Airflow
        from numerai_pipeline.dag.model_operator import contract_environment

        environment = contract_environment(spec, spec.cores_of(CORES)) | {
            "SEED": str(SEED),
            "TARGET_DAYS": str(TARGET_DAYS),
            "EMBARGO": str(self._embargo),
        }
        if spec.search_parts:
            environment["TIME_LIMIT"] = str(self._search_seconds)
            environment["TIME_LIMIT_PART"] = str(self._search_seconds // spec.search_parts)
        return environment

    def _inputs(self, spec: ModelSpec) -> dict[str, Path]:
        inputs = {f"{name}.parquet": self._tables / f"{name}.parquet" for name in TABLES}
        upstream = [*self._registry.preprocessing(spec.name)]
        if spec.is_post_processing:
            inputs.pop("live.parquet", None)
            upstream = [*self._registry.upstream(spec.name)]
        if spec.reads_live_rows:
            inputs["live.parquet"] = self._tables / "live.parquet"
        for name in upstream:
            inputs |= self._outputs(self._registry.tasks[name])
        manifests = {f"{name}.manifest.json": manifest_path(path) for name, path in inputs.items()}
        return inputs | {name: path for name, path in manifests.items() if path.is_file()}

    def _outputs(self, spec: ModelSpec) -> dict[str, Path]:
        directory = self.directory(spec.name)
        if spec.predicts:
            predictions = f"predictions/{spec.name}.csv"
            files = {
                f"validation/{spec.name}.csv": directory / "model" / "validation.csv",
                predictions: directory / predictions,
            }
        else:
            files = {output: directory / "model" / output for output in spec.outputs}
            files |= {output: directory / output for output in spec.live_outputs}
        # a model that failed has none
        return {name: path for name, path in files.items() if path.is_file()}


class Sampler:
    """Samples the processor time and the memory of a container, once a second, until it ends."""

    def __init__(self, client: docker.APIClient, identifier: str) -> None:
        self._processor_seconds = self._memory = 0.0
        self._stream = client.stats(identifier, decode=True, stream=True)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def result(self) -> tuple[float, float]:
        """Return processor seconds, and the peak memory in MiB."""
        self._thread.join(timeout=30)
        return self._processor_seconds, self._memory

    def _sample(self) -> None:
        for sample in self._stream:
            used = sample["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            details: Mapping[str, int] = sample["memory_stats"].get("stats", {})
            # control groups of version 1, or 2
            anonymous = details.get("total_rss", details.get("anon", 0))
            shared = details.get("total_shmem", details.get("shmem", 0))
            if not used and not anonymous:
                return  # the sample of a container that has ended
            self._processor_seconds = max(self._processor_seconds, used)
            self._memory = max(self._memory, (anonymous + shared) / MIB)


def dockerfile_environment(path: Path) -> dict[str, str]:
    """Return the variables that the ENV instructions of a Dockerfile set."""
    instructions = path.read_text().replace("\\\n", " ").splitlines()
    words = [word for line in instructions if line.startswith("ENV ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def machine() -> str:
    """Describe this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{CORES} cores, {math.floor(memory + 0.5)} GiB, {platform.machine()}"
