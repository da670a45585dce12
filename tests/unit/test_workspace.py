"""What a container can read, what it may leave, and what becomes of a workspace whose container was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.manifests import manifest_path, verified_manifest, write_manifest
from numerai_pipeline.run_layout import RunLayout
from numerai_pipeline.workspace import Workspace

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
    write(layout.predictions("xgboost"), "of another")
    return layout


def workspace_of(run: RunLayout, task: str = "svm", **more: object) -> Workspace:
    facts: dict[str, object] = {
        "read_only": (run.training,),
        "outputs": (f"predictions/{task}.csv", f"reports/{task}.json"),
        "others": frozenset({"tsne/map.txt"}),
    }
    return Workspace(run=run, task=task, **{**facts, **more})  # type: ignore[arg-type]


def test_inputs_come_with_their_manifests_and_have_a_place(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.lay_out(USER)
    assert workspace.readable() == (run.training, manifest_path(run.training))
    assert (workspace.directory / "training.parquet").read_bytes() == b""
    assert not (workspace.directory / "predictions" / "xgboost.csv").exists()


def test_what_it_leaves_is_brought_home_with_its_manifest_and_noted(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.lay_out(USER)
    write(workspace.inside.predictions("svm"), "mine")
    write(workspace.inside.report("svm"), "{}")
    (workspace.directory / "plots").mkdir()
    (workspace.directory / "plots" / "svm.png").write_bytes(b"a picture")
    workspace.bring_home("an-image")
    workspace.remove()
    assert run.predictions("svm").read_text() == "mine"
    assert verified_manifest(run.predictions("svm"), inputs="inputs")
    assert run.training.read_text() == "training"
    note = json.loads(run.image_record("svm").read_text())
    assert note == {"image": "an-image", "files": ["plots/svm.png", "predictions/svm.csv", "reports/svm.json"]}
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
def test_what_is_not_for_it_to_leave_is_not_taken(run: RunLayout, name: str, caplog: pytest.LogCaptureFixture) -> None:
    workspace = workspace_of(run)
    workspace.lay_out(USER)
    before = (run.directory / name).read_text() if (run.directory / name).exists() else None
    write(workspace.directory / name, "spoilt")
    workspace.bring_home("an-image")
    path = run.directory / name
    assert (path.read_text() if path.exists() else None) == before
    assert f"svm left {name}, which is not for it to leave: not taken" in caplog.text


def test_what_scores_others_may_leave_reports_on_them(run: RunLayout) -> None:
    workspace = workspace_of(run, "evaluate", scores_others=True)
    workspace.lay_out(USER)
    write(workspace.inside.evaluation("xgboost"), "{}")
    workspace.bring_home("an-image")
    assert run.evaluation("xgboost").read_text() == "{}"


def test_what_an_earlier_container_left_and_this_one_did_not_is_gone(run: RunLayout) -> None:
    workspace = workspace_of(run, "evaluate", scores_others=True)
    for names in (("svm", "xgboost"), ("svm",)):
        workspace.lay_out(USER)
        for name in names:
            write(workspace.inside.evaluation(name), "{}")
        workspace.bring_home("an-image")
    assert run.evaluation("svm").exists()
    assert not run.evaluation("xgboost").exists()
    assert not manifest_path(run.evaluation("xgboost")).exists()


def test_links_lead_nowhere(run: RunLayout, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("id,prediction\n")
    workspace = workspace_of(run)
    workspace.lay_out(USER)
    workspace.inside.predictions("svm").symlink_to(secret)
    with pytest.raises(BadInputError, match=r"predictions/svm\.csv: the container left something that is not a plain"):
        workspace.check_plain(workspace.inside.predictions("svm"))
    workspace.bring_home("an-image")
    assert not run.predictions("svm").exists()
    # nor does a folder that became a link
    workspace.remove()
    workspace.lay_out(USER)
    workspace.inside.predictions_directory.rmdir()
    workspace.inside.predictions_directory.symlink_to(run.predictions_directory)
    write(run.predictions("svm"), "planted")
    with pytest.raises(BadInputError):
        workspace.check_plain(workspace.inside.predictions("svm"))
    workspace.lay_out(USER)
    assert run.predictions("xgboost").read_text() == "of another"


def test_finished_parts_of_a_preparation_outlive_its_container_and_half_ones_do_not(run: RunLayout) -> None:
    names = ("tsne/one.txt", "tsne/two.txt")
    workspace = workspace_of(run, "tsne", outputs=("reports/tsne.json", *names), kept=names)
    workspace.lay_out(USER)
    write(workspace.directory / names[0], "finished")
    (workspace.directory / names[1]).write_text("ha")
    (workspace.directory / "tsne" / ".two.txt.part").write_text("ha")
    workspace.salvage()
    assert not workspace.directory.exists()
    assert verified_manifest(run.directory / names[0])
    assert not (run.directory / names[1]).exists()
    workspace.lay_out(USER)
    assert verified_manifest(workspace.directory / names[0])
    assert not (workspace.directory / names[1]).exists()


def test_bringing_home_may_be_broken_off_and_done_again(run: RunLayout) -> None:
    workspace = workspace_of(run)
    workspace.lay_out(USER)
    write(workspace.inside.predictions("svm"), "mine")
    write(workspace.inside.report("svm"), "{}")
    workspace.bring_home("an-image")
    # as if it had been killed right before its last step: the next try finds one file at home, one in the workspace
    write(workspace.inside.report("svm"), "{}")
    workspace.bring_home("an-image")
    assert verified_manifest(run.predictions("svm"))
    assert verified_manifest(run.report("svm"))
    assert len(json.loads(run.image_record("svm").read_text())["files"]) == 2


def test_what_is_to_be_made_anew_is_gone_before_it_begins(run: RunLayout) -> None:
    write(run.predictions("svm"), "of old")
    workspace_of(run).lay_out(USER)
    assert not run.predictions("svm").exists()
    assert run.predictions("xgboost").exists()
