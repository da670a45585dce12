"""The outputs of a container become results: checked, published, and recorded in the run's directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.containers.result_collection import ResultCollector
from numerai_pipeline.containers.task_plan import RunFiles, TaskPlan, TaskPlanner
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError, DiskFullError
from numerai_pipeline.models.registry import Registry, load_registry
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import manifest_path, verified_manifest, write_manifest
from numerai_pipeline.storage.results import ResultStore
from numerai_pipeline.storage.task_records import read_record
from tests.samples import task
from tests.unit.containers.planned_run import IMAGE, LIVE_IDS, VALIDATION_IDS, add_dataset, new_run, record
from tests.volumes import flip_a_byte

USER = f"{os.getuid()}:{os.getgid()}"


def csv_of(ids: list[str], header: str = "id,prediction") -> str:
    return f"{header}\n" + "".join(f"{row_id},0.{number + 1}\n" for number, row_id in enumerate(ids))


def write(path: Path, content: str, *, manifest: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if manifest:
        write_manifest(path)


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "volume")
    add_dataset(layout, "new")
    return layout


@pytest.fixture
def registry(images_folder: Callable[..., Path]) -> Registry:
    tasks: dict[str, Any] = {
        "svm": task(keeps_model=True),
        "of_2018": task(),
        "csv_of_2018": task(tables="csv"),
        "tsne": task(keeps_model=True, predicts=False, outputs=["tsne/map.csv"], live_outputs=["live/tsne/map.csv"]),
        "tsne_of_2018": task(predicts=False, outputs=["tsne/old.csv"]),
        "evaluate": task(keeps_model=True, predicts=False, depends_on=["models"], outputs=["leaderboard.json"]),
    }
    return load_registry(images_folder({"images": {"classic": {"description": "x"}}, "tasks": tasks}))


class Container:
    """A task's container in a run, played by the test."""

    def __init__(self, registry: Registry, run: RunFiles, name: str) -> None:
        self._planner, self._name, self.run = TaskPlanner(registry.tasks[name], registry), name, run
        self.store = ResultStore(run.data)
        inputs = self._planner.inputs(self.plan, run)
        self.workspace = Workspace(run.data.work(name, self.plan.key), inputs)
        self.inputs = inputs
        self.workspace.prepare(USER)

    @property
    def plan(self) -> TaskPlan:
        return self._planner.plan(self.run, IMAGE, {})

    @property
    def collector(self) -> ResultCollector:
        return ResultCollector(self.plan, self.run, IMAGE)

    def fit(self) -> None:
        """Write a finished fit."""
        model = self.workspace.model
        if self.plan.spec.predicts:
            write(model / "validation.csv", csv_of(VALIDATION_IDS))
        for name in self.plan.spec.outputs:
            write(model / name, "{}")
        write(model / "report.json", '{"seconds": 1.5}')
        write(model / "saved" / "state", "state", manifest=False)
        write(model / "model.json", "{}", manifest=False)

    def predict(self) -> None:
        """Write the outputs about the live rows."""
        if self.plan.spec.predicts:
            write(self.workspace.directory / "predictions" / f"{self._name}.csv", csv_of(LIVE_IDS))
        for name in self.plan.spec.live_outputs:
            write(self.workspace.directory / name, "{}")
        write(self.workspace.directory / "reports" / f"{self._name}.json", '{"seconds": 0.5}')

    def results(self) -> dict[str, set[str]]:
        """Return the results of the task: kind → their files, without manifests."""
        folder = self.store.path(self._name, "any").parent
        return {
            self.store.read(self._name, path.name).kind: {
                str(file.relative_to(path))
                for file in path.rglob("*")
                if file.is_file() and not file.name.endswith(".manifest.json")
            }
            for path in (folder.iterdir() if folder.is_dir() else ())
        }


@pytest.fixture
def container(data: DataLayout, registry: Registry) -> Container:
    return Container(registry, new_run(data), "svm")


def test_collect_publishes_the_fit_and_the_prediction(container: Container) -> None:
    container.fit()
    container.predict()
    before = container.plan
    container.collector.collect(container.workspace)
    assert container.results() == {
        "fit": {"validation.csv", "report.json", "model.json", "saved/state", "result.json"},
        "prediction": {"predictions/svm.csv", "prediction_report.json", "result.json"},
    }
    assert container.plan.is_finished
    fit = container.store.read("svm", before.fit_key)
    assert (fit.image, fit.dataset, fit.round, fit.run) == (IMAGE, "new", "1300", "numerai_tournament/one")
    assert fit.inputs == before.fit_inputs
    # nothing is in the run's directory before the task's record
    assert read_record(container.run.layout, "svm") is None
    assert not container.run.layout.predictions("svm").exists()


def test_write_record_links_the_results(container: Container) -> None:
    container.fit()
    container.predict()
    container.collector.collect(container.workspace)
    record_made = container.collector.record()
    container.collector.write_record(record_made)
    layout, plan = container.run.layout, container.plan
    assert read_record(layout, "svm") == record_made
    assert (record_made.fit, record_made.prediction) == (plan.fit_key, plan.prediction_key)
    assert (record_made.dataset, record_made.image, record_made.fit_round) == ("new", IMAGE, "1300")
    assert layout.predictions("svm").read_text() == csv_of(LIVE_IDS)
    assert layout.validation_predictions("svm").read_text() == csv_of(VALIDATION_IDS)
    # the report is the fit's, not that of the container that only predicted
    assert layout.report("svm").read_text() == '{"seconds": 1.5}'


def test_collect_of_a_container_that_only_predicted(data: DataLayout, registry: Registry, container: Container) -> None:
    container.fit()
    container.predict()
    container.collector.collect(container.workspace)
    later = Container(registry, new_run(data, "two", live_sha256="others"), "svm")
    assert later.plan.has_fit
    assert "training.parquet" not in later.inputs
    later.predict()
    later.collector.collect(later.workspace)
    assert later.plan.is_finished
    assert later.collector.record().fit == container.collector.record().fit
    assert later.collector.record().prediction != container.collector.record().prediction


def test_collect_invalid_prediction_keeps_the_fit(container: Container) -> None:
    container.fit()
    write(container.workspace.directory / "predictions" / "svm.csv", csv_of(LIVE_IDS[:-1]))
    with pytest.raises(BadInputError, match=r"svm\.csv: 1 of 2 ids of the table have no prediction, the first is l2"):
        container.collector.collect(container.workspace)
    assert set(container.results()) == {"fit"}


def test_collect_without_manifests_writes_them(container: Container) -> None:
    container.fit()
    container.predict()
    for path in (container.workspace.model / "validation.csv", container.workspace.directory / "predictions/svm.csv"):
        manifest_path(path).unlink()
    container.collector.collect(container.workspace)
    plan = container.plan
    assert verified_manifest(container.store.path("svm", plan.fit_key) / "validation.csv")
    assert verified_manifest(container.store.path("svm", str(plan.prediction_key)) / "predictions/svm.csv")


def _without_end(container: Container) -> None:
    (container.workspace.model / "model.json").unlink()


def _without_validation(container: Container) -> None:
    (container.workspace.model / "validation.csv").unlink()
    manifest_path(container.workspace.model / "validation.csv").unlink()


def _other_rows(container: Container) -> None:
    write(container.workspace.model / "validation.csv", csv_of([*LIVE_IDS, "v1"]))


def _link(container: Container) -> None:
    (container.workspace.model / "saved" / "passwd").symlink_to("/etc/passwd")


def _linked_validation(container: Container) -> None:
    path = container.workspace.model / "validation.csv"
    other = container.run.data.root / "secret.csv"
    path.rename(other)
    path.symlink_to(other)


def _pipe(container: Container) -> None:
    os.mkfifo(container.workspace.model / "pipe")


def _piped_manifest(container: Container) -> None:
    path = manifest_path(container.workspace.model / "validation.csv")
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_end, r"svm: the container ended without an error but did not finish its fit \(model/model\.json\)"),
        (_without_validation, r"validation\.csv: the container succeeded without writing this file"),
        (_other_rows, r"validation\.csv: 2 of 3 ids of the table have no prediction, the first is v2"),
        (_link, "saved/passwd: the container produced something other than a regular file"),
        (_linked_validation, r"model/validation\.csv: the container produced something other than a regular file"),
        (_pipe, "pipe: the container produced something other than a regular file"),
        (_piped_manifest, r"validation\.csv\.manifest\.json: the container produced something other"),
    ],
)
def test_collect_invalid_fit_is_removed_and_not_published(
    container: Container, spoil: Callable[[Container], None], message: str
) -> None:
    container.fit()
    container.predict()
    spoil(container)
    with pytest.raises(BadInputError, match=message):
        container.collector.collect(container.workspace)
    assert container.results() == {}
    assert not container.workspace.model.exists()


@pytest.mark.parametrize("output", ["model/tsne/map.csv", "live/tsne/map.csv"])
@pytest.mark.parametrize("problem", ["missing", "no manifest", "changed", "linked", "piped manifest"])
def test_collect_declared_output_is_required_with_its_manifest(
    data: DataLayout, registry: Registry, output: str, problem: str, tmp_path: Path
) -> None:
    tsne = Container(registry, new_run(data), "tsne")
    tsne.fit()
    tsne.predict()
    path = tsne.workspace.directory / output
    if problem == "missing":
        path.unlink()
    elif problem == "no manifest":
        manifest_path(path).unlink()
    elif problem == "changed":
        flip_a_byte(path)
    elif problem == "linked":
        path.rename(tmp_path / "map.csv")
        path.symlink_to(tmp_path / "map.csv")
    else:
        manifest_path(path).unlink()
        os.mkfifo(manifest_path(path))
    name = output.removeprefix("model/")
    with pytest.raises(BadInputError, match=rf"(did not produce {name}, each with its manifest|{output}.* produced)"):
        tsne.collector.collect(tsne.workspace)
    assert set(tsne.results()) == (set() if output.startswith("model") else {"fit"})


def test_collect_preprocessing_publishes_both_kinds_of_outputs(data: DataLayout, registry: Registry) -> None:
    tsne = Container(registry, new_run(data), "tsne")
    tsne.fit()
    tsne.predict()
    tsne.collector.collect(tsne.workspace)
    tsne.collector.write_record(tsne.collector.record())
    assert tsne.results()["prediction"] == {"live/tsne/map.csv", "prediction_report.json", "result.json"}
    for name in ("tsne/map.csv", "live/tsne/map.csv", "reports/tsne.json"):
        assert (tsne.run.layout.directory / name).is_file()


def test_collect_evaluation_has_no_prediction(data: DataLayout, registry: Registry) -> None:
    run = new_run(data)
    record(run, "svm", "s", "sp")
    evaluate = Container(registry, run, "evaluate")
    evaluate.fit()
    write(evaluate.workspace.model / "evaluation" / "svm.json", "{}")
    evaluate.collector.collect(evaluate.workspace)
    made = evaluate.collector.record()
    evaluate.collector.write_record(made)
    assert made.prediction is None
    assert run.layout.leaderboard.read_text() == "{}"
    assert run.layout.evaluation("svm").read_text() == "{}"


@pytest.mark.parametrize("name", ["of_2018", "csv_of_2018"])
@pytest.mark.parametrize("header", ["id,prediction", "id,probability"])
def test_collect_image_of_2018_splits_its_predictions(
    data: DataLayout, registry: Registry, header: str, name: str
) -> None:
    old = Container(registry, new_run(data), name)
    predictions = csv_of(VALIDATION_IDS + LIVE_IDS, header)
    write(old.workspace.directory / "predictions" / f"{name}.csv", predictions, manifest=False)
    old.collector.collect(old.workspace)
    assert old.results() == {"fit": {"validation.csv", f"predictions/{name}.csv", "result.json"}}
    assert old.plan.is_finished
    made = old.collector.record()
    old.collector.write_record(made)
    assert made.fit == made.prediction
    assert old.run.layout.validation_predictions(name).read_text() == csv_of(VALIDATION_IDS)
    assert old.run.layout.predictions(name).read_text() == "id,prediction\nl1,0.4\nl2,0.5\n"
    assert verified_manifest(old.run.layout.predictions(name))


def test_collect_image_of_2018_publishes_its_outputs_and_report(data: DataLayout, registry: Registry) -> None:
    old = Container(registry, new_run(data), "tsne_of_2018")
    with pytest.raises(BadInputError, match=r"did not produce tsne/old\.csv, each with its manifest"):
        old.collector.collect(old.workspace)
    assert old.results() == {}
    write(old.workspace.directory / "tsne/old.csv", "map")
    write(old.workspace.directory / "reports/tsne_of_2018.json", "{}")
    write(old.workspace.directory / "run.json", "spoilt")
    old.collector.collect(old.workspace)
    assert old.results() == {"fit": {"tsne/old.csv", "report.json", "result.json"}}


def test_collect_twice_is_harmless(container: Container) -> None:
    """As after a kill between the two results."""
    container.fit()
    container.predict()
    collector = container.collector
    collector.collect(container.workspace)
    inodes = {path: path.stat().st_ino for path in container.run.data.results_root.rglob("*")}
    collector.collect(container.workspace)
    assert {path: path.stat().st_ino for path in container.run.data.results_root.rglob("*")} == inodes


@pytest.mark.parametrize("name", ["training", "validation", "live"])
@pytest.mark.parametrize("problem", ["changed", "missing"])
def test_check_inputs_damaged_table_names_the_remedy(container: Container, name: str, problem: str) -> None:
    container.collector.check_inputs(container.inputs)
    path = container.inputs[f"{name}.parquet"]
    flip_a_byte(path) if problem == "changed" else path.unlink()
    with pytest.raises(BadInputError, match=rf"{path}: .*clear `unzip` and run it again"):
        container.collector.check_inputs(container.inputs)


def test_check_inputs_full_volume_is_an_error(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: object, _needed: int, what: str) -> None:
        raise DiskFullError(what)

    monkeypatch.setattr("numerai_pipeline.containers.result_collection.require_free_space", full)
    with pytest.raises(DiskFullError, match="svm: its output"):
        container.collector.check_inputs(container.inputs)


@pytest.mark.parametrize("name", ["svm", "tsne"])
def test_container_report_is_of_fit_and_prediction_together(data: DataLayout, registry: Registry, name: str) -> None:
    container = Container(registry, new_run(data), name)
    container.fit()
    container.predict()
    container.collector.collect(container.workspace)
    assert container.collector.container_report() == {"seconds": 0.5, "peak_memory_mib": None}


def test_container_report_without_a_prediction_is_of_the_fit(data: DataLayout, registry: Registry) -> None:
    run = new_run(data)
    record(run, "svm", "s", "sp")
    evaluate = Container(registry, run, "evaluate")
    evaluate.fit()
    evaluate.collector.collect(evaluate.workspace)
    assert evaluate.collector.container_report() == {"seconds": 1.5, "peak_memory_mib": None}
