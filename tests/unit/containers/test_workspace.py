"""A workspace: its inputs, the outputs that are collected, and its state after a kill of the container."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import manifest_path, verified_manifest, write_manifest

USER = f"{os.getuid()}:{os.getgid()}"


def write(path: Path, content: str, *, inputs: str | None = "inputs") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    write_manifest(path, inputs=inputs)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path / "run")
    write(layout.training, "training")
    write(layout.predictions("xgboost"), "another model's")
    return layout


def workspace_of(run: RunLayout, task: str = "svm", **more: object) -> Workspace:
    arguments: dict[str, object] = {
        "read_only": (run.training,),
        "outputs": (f"predictions/{task}.csv", f"reports/{task}.json"),
        "reserved": frozenset({"tsne/map.txt"}),
    }
    return Workspace(run=run, task=task, **{**arguments, **more})  # type: ignore[arg-type]


def test_prepare_inputs_have_manifests_and_mount_targets(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.prepare(USER)
    assert workspace.readable() == (run.training, manifest_path(run.training))
    assert (workspace.directory / "training.parquet").read_bytes() == b""
    assert not (workspace.directory / "predictions" / "xgboost.csv").exists()


def test_collect_outputs_moves_files_with_manifests_and_records_them(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.prepare(USER)
    write(workspace.container_layout.predictions("svm"), "new")
    write(workspace.container_layout.report("svm"), "{}")
    (workspace.directory / "plots").mkdir()
    (workspace.directory / "plots" / "svm.png").write_bytes(b"a picture")
    workspace.collect_outputs("an-image")
    workspace.remove()
    assert run.predictions("svm").read_text() == "new"
    assert verified_manifest(run.predictions("svm"), inputs="inputs")
    assert run.training.read_text() == "training"
    record = json.loads(run.image_record("svm").read_text())
    assert record == {"image": "an-image", "files": ["plots/svm.png", "predictions/svm.csv", "reports/svm.json"]}
    assert not (run.directory / ".work").exists()


@pytest.mark.parametrize(
    "name",
    [
        "predictions/xgboost.csv",
        "reports/xgboost.json",
        "reports/evaluation/xgboost.json",
        "tsne/map.txt",
        "run.json",
        "leaderboard.json",
        "submissions/model.csv",
        "images/xgboost.json",
        "logs/xgboost.try-1.log",
    ],
)
def test_collect_outputs_undeclared_file_is_ignored(
    run: RunLayout, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = workspace_of(run)
    workspace.prepare(USER)
    before = (run.directory / name).read_text() if (run.directory / name).exists() else None
    write(workspace.directory / name, "spoilt")
    workspace.collect_outputs("an-image")
    path = run.directory / name
    assert (path.read_text() if path.exists() else None) == before
    assert f"svm: ignoring undeclared output {name}" in caplog.text


def test_collect_outputs_evaluation_writes_reports_of_other_models(run: RunLayout) -> None:
    workspace = workspace_of(run, "evaluate", writes_evaluations=True)
    workspace.prepare(USER)
    write(workspace.container_layout.evaluation("xgboost"), "{}")
    workspace.collect_outputs("an-image")
    assert run.evaluation("xgboost").read_text() == "{}"


def test_prepare_outputs_of_earlier_container_are_removed(run: RunLayout) -> None:
    workspace = workspace_of(run, "evaluate", writes_evaluations=True)
    for names in (("svm", "xgboost"), ("svm",)):
        workspace.prepare(USER)
        for name in names:
            write(workspace.container_layout.evaluation(name), "{}")
        workspace.collect_outputs("an-image")
    assert run.evaluation("svm").exists()
    assert not run.evaluation("xgboost").exists()
    assert not manifest_path(run.evaluation("xgboost")).exists()


def test_collect_outputs_links_are_not_followed(run: RunLayout, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("id,prediction\n")
    workspace = workspace_of(run)
    workspace.prepare(USER)
    workspace.container_layout.predictions("svm").symlink_to(secret)
    with pytest.raises(
        BadInputError, match=r"predictions/svm\.csv: the container produced something other than a regular"
    ):
        workspace.check_plain(workspace.container_layout.predictions("svm"))
    workspace.collect_outputs("an-image")
    assert not run.predictions("svm").exists()
    # a folder that was replaced by a link
    workspace.remove()
    workspace.prepare(USER)
    workspace.container_layout.predictions_directory.rmdir()
    workspace.container_layout.predictions_directory.symlink_to(run.predictions_directory)
    write(run.predictions("svm"), "planted")
    with pytest.raises(BadInputError):
        workspace.check_plain(workspace.container_layout.predictions("svm"))
    workspace.prepare(USER)
    assert run.predictions("xgboost").read_text() == "another model's"


def test_rescue_partial_outputs_keeps_finished_resumable_files_only(run: RunLayout) -> None:
    names = ("tsne/one.txt", "tsne/two.txt")
    workspace = workspace_of(run, "tsne", outputs=("reports/tsne.json", *names), resumable=names)
    workspace.prepare(USER)
    write(workspace.directory / names[0], "finished")
    (workspace.directory / names[1]).write_text("ha")
    (workspace.directory / "tsne" / ".two.txt.part").write_text("ha")
    workspace.rescue_partial_outputs()
    assert not workspace.directory.exists()
    assert verified_manifest(run.directory / names[0])
    assert not (run.directory / names[1]).exists()
    workspace.prepare(USER)
    assert verified_manifest(workspace.directory / names[0])
    assert not (workspace.directory / names[1]).exists()


def test_collect_outputs_interrupted_and_repeated_is_complete(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.prepare(USER)
    write(workspace.container_layout.predictions("svm"), "new")
    write(workspace.container_layout.report("svm"), "{}")
    workspace.collect_outputs("an-image")
    # a kill right before the last step: the next attempt has one file in the run's directory, one in the workspace
    write(workspace.container_layout.report("svm"), "{}")
    workspace.collect_outputs("an-image")
    assert verified_manifest(run.predictions("svm"))
    assert verified_manifest(run.report("svm"))
    assert len(json.loads(run.image_record("svm").read_text())["files"]) == 2


def test_prepare_old_outputs_are_removed_from_the_run(run: RunLayout) -> None:
    write(run.predictions("svm"), "old")
    workspace_of(run).prepare(USER)
    assert not run.predictions("svm").exists()
    assert run.predictions("xgboost").exists()
