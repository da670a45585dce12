"""The records of a run's tasks, and the links of its directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.task_records import (
    Fallback,
    TaskRecord,
    link_name,
    read_record,
    remove_record,
    require_record,
    write_record,
)
from tests.unit.containers.planned_run import add_result

RECORD = TaskRecord("svm", "numerai-classic:1", "dataset", "fit", "prediction", "2026-08-15T13:00:00+00:00", "1300")
DECLARED = ("predictions/svm.csv", "plots")


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path / "volume")


@pytest.fixture
def run(data: DataLayout) -> RunLayout:
    return data.run("1300", "run")


def add_results(data: DataLayout, task: str = "svm", fit: str = "fit") -> list[Path]:
    made = add_result(
        data, task, fit, validation_csv="validation", report_json="{}", saved__state="state", model_json="{}"
    )
    prediction = add_result(data, task, f"{fit}-prediction", "prediction", **{f"predictions__{task}_csv": "live"})
    return [made, prediction]


@pytest.mark.parametrize("fallback", [None, Fallback("older", "old-fit", "old-prediction")])
def test_record_round_trip(run: RunLayout, fallback: Fallback | None) -> None:
    record = replace(RECORD, fallback=fallback)
    write_record(run, record, [], ())
    assert read_record(run, "svm") == require_record(run, "svm") == record
    assert [path.stem for path in run.tasks_directory.iterdir()] == ["svm"]


def test_record_missing_is_none_or_an_error(run: RunLayout) -> None:
    assert read_record(run, "svm") is None
    assert not run.tasks_directory.exists()
    with pytest.raises(BadInputError, match="`svm` has no result in this run: clear `svm` and run it again"):
        require_record(run, "svm")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fallback": null}', '{"fallback": 1}', "[" * 100_000])
def test_record_damaged_is_an_error(run: RunLayout, content: str) -> None:
    run.task_record("svm").parent.mkdir(parents=True)
    run.task_record("svm").write_text(content)
    with pytest.raises(BadInputError, match=r"the record of `svm` is damaged .*: clear `svm` and run it again"):
        read_record(run, "svm")


def test_write_record_links_are_relative_and_lead_to_the_results(data: DataLayout, run: RunLayout) -> None:
    write_record(run, RECORD, add_results(data), DECLARED)
    assert run.predictions("svm").read_text() == "live"
    assert run.validation_predictions("svm").read_text() == "validation"
    assert run.report("svm").read_text() == "{}"
    for path in (run.predictions("svm"), run.predictions("svm").with_name("svm.csv.manifest.json")):
        assert path.is_symlink()
        assert not path.readlink().is_absolute()
    files = {str(path.relative_to(run.directory)) for path in run.directory.rglob("*") if not path.is_dir()}
    linked = {"predictions/svm.csv", "validation/svm.csv", "reports/svm.json"}
    assert files == {"tasks/svm.json"} | linked | {f"{name}.manifest.json" for name in linked}


def test_write_record_links_hold_where_the_volume_is_mounted_elsewhere(
    data: DataLayout, run: RunLayout, tmp_path: Path
) -> None:
    write_record(run, RECORD, add_results(data), DECLARED)
    data.root.rename(tmp_path / "elsewhere")
    assert DataLayout(tmp_path / "elsewhere").run("1300", "run").predictions("svm").read_text() == "live"


def test_write_record_replaces_the_links_of_an_earlier_attempt(data: DataLayout, run: RunLayout) -> None:
    first, second = add_results(data), add_results(data, fit="another")
    write_record(run, RECORD, first, DECLARED)
    write_record(run, replace(RECORD, fit="another"), second, DECLARED)
    assert run.validation_predictions("svm").resolve() == (second[0] / "validation.csv").resolve()
    assert (first[0] / "validation.csv").read_text() == "validation"


def test_remove_record_removes_its_links_and_no_result(data: DataLayout, run: RunLayout) -> None:
    results = add_results(data)
    write_record(run, RECORD, results, DECLARED)
    write_record(run, replace(RECORD, task="svm_2"), add_results(data, "svm_2"), ("predictions/svm_2.csv",))
    run.run_metadata.write_text("{}")
    remove_record(run, "svm")
    assert read_record(run, "svm") is None
    files = {path.name for path in run.directory.rglob("*") if not path.is_dir() and "manifest" not in path.name}
    assert files == {"svm_2.json", "svm_2.csv", "run.json"}
    assert run.predictions("svm_2").read_text() == "live"
    assert all((result / "result.json").is_file() for result in results)
    remove_record(run, "svm")  # nothing is left to remove


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("report.json", "reports/svm.json"),
        ("report.json.manifest.json", "reports/svm.json.manifest.json"),
        ("validation.csv", "validation/svm.csv"),
        ("validation.csv.manifest.json", "validation/svm.csv.manifest.json"),
        ("pipeline.py", "reports/svm_pipeline.py"),
        ("predictions/svm.csv", "predictions/svm.csv"),
        ("predictions/svm.csv.manifest.json", "predictions/svm.csv.manifest.json"),
        ("plots/svm.png", "plots/svm.png"),
        ("evaluation/svm.json", "reports/evaluation/svm.json"),
        ("model.json", None),
        ("result.json", None),
        ("saved/state", None),
        ("prediction_report.json", None),
        ("run.json", None),
        ("tasks/xgboost.json", None),
        ("predictions/xgboost.csv", None),
        ("reports/xgboost.json", None),
        ("submissions/mine.csv", None),
        ("leaderboard.json", None),
        ("logs/svm.try-1.log", None),
    ],
)
def test_link_name_has_own_and_declared_files_only(file: str, link: str | None) -> None:
    found = link_name("svm", Path(file), (*DECLARED, "evaluation"))
    assert found == (Path(link) if link else None)


def test_link_name_evaluations_of_a_model_are_not_linked() -> None:
    assert link_name("svm", Path("evaluation/xgboost.json"), DECLARED) is None
