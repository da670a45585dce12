"""Summaries of the tasks of a run."""

from __future__ import annotations

from pathlib import Path

from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.reports import measures_of, summary_of
from tests.generated_results import FITTED_AT, add_task, write_json


def test_summary_of_a_model_has_rows_fit_and_scores(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path).run("1335", "0123456789ab")

    def predict(directory: Path) -> None:
        path = directory / "predictions" / "svm.csv"
        path.parent.mkdir()
        path.write_text("id,prediction\nn1,0.5\n")
        write_manifest(path, rows=1)

    report = {"seconds": 4.5, "validation": {"logloss": 0.69, "correlation": "NaN"}}
    record = add_task(
        layout, "svm", fit=lambda directory: write_json(directory / "report.json", report), prediction=predict
    )
    assert summary_of("svm", layout) == {
        "predictions": str(layout.predictions("svm")),
        "rows": 1,
        "fit": record.fit,
        "fitted_at": FITTED_AT,
        "seconds": 4.5,
        "logloss": 0.69,
        "consistency": None,
        "correlation": None,
    }


def test_summary_of_a_task_without_results_has_no_values(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path).run("1335", "0123456789ab")
    assert set(summary_of("svm", layout).values()) == {None}


def test_measures_of_a_report_are_finite_numbers(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path).run("1335", "0123456789ab")
    content = {"seconds": 4.5, "peak_memory_mib": 840, "rows": {"training": 5}}
    add_task(layout, "svm", fit=lambda directory: write_json(directory / "report.json", content))
    (report,) = tmp_path.glob("results/svm/*/report.json")
    assert measures_of(report) == {"seconds": 4.5, "peak_memory_mib": 840.0}
    write_json(report, {"seconds": "long", "peak_memory_mib": float("inf")})
    assert measures_of(report) == {"seconds": None, "peak_memory_mib": None}
    report.unlink()
    assert measures_of(report) == {"seconds": None, "peak_memory_mib": None}
