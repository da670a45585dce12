"""The life of a model in the real process: fit, final fit, saved model, predictions of every later run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_contract import outputs

pytestmark = pytest.mark.slow

Contract = Callable[..., Any]

# the prediction depends on the rows of the last fit and on the choice of the first
MODEL = """
    import time
    import numpy as np
    from numerai_contract import saved_state
    from numerai_contract.fitting import Fitted
    from numerai_contract.task import TrainingSummary

    class Model:
        def __init__(self, weight, rows):
            self.weight, self.rows = weight, rows

        def predict(self, task, table):
            return task.predict_rows(table, table.batches(), lambda block: 0.1 + self.weight * block[:, 0])

        def save(self, directory):
            saved_state.save(directory, {"weight": np.array(self.weight)}, {"rows": self.rows})
            (directory / "folder").mkdir()
            (directory / "folder" / "more.bin").write_bytes(b"more")

    def fit(task, earlier=None):
        table = task.training
        task.progress.log(f"fit of {len(table)} rows: {task.is_final} {earlier and earlier.choice}")
        if "SLEEP" in task.parameters:
            time.sleep(600)
        weight = (0.5 if earlier is None else 0.5 + earlier.choice) * float(np.nanmean(table.targets))
        is_last = "LAST" in task.parameters
        return Fitted(Model(weight, len(table)), TrainingSummary(len(table), chosen={"w": weight}), 0.25, is_last)

    def load(task, directory):
        arrays, settings = saved_state.load(directory)
        return Model(float(arrays["weight"]), settings["rows"])
"""
MAKE = """
    RESUMES = True
    from numerai_contract.task import TrainingSummary

    def make(task):
        kept = task.model.path / "kept"
        found = f"kept: {kept.is_file()}, saved: {len(list(task.model.saved.iterdir()))}"
        kept.write_text(f"{len(task.validation)}")
        (task.model.saved / "index").write_text("17")
        task.progress.log(found)
        if "SLEEP" in task.parameters:
            import time
            time.sleep(600)
        return TrainingSummary(len(task.training))

    def apply(task):
        index = (task.model.saved / "index").read_text()
        (task.parameters.storing / "placed").write_text(f"{index} {len(task.testing)}")
"""


def _end(process: Any) -> tuple[int, list[str]]:
    printed, errors = process.communicate(timeout=60)
    assert errors == ""
    return process.returncode, printed.splitlines()


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """Write three tables of 12, 8 and 6 rows, and return the environment of a run."""
    random = np.random.default_rng(2)
    for name, rows, kind in (("training", 12, "train"), ("validation", 8, "validation"), ("live", 6, "live")):
        known = np.where(np.arange(rows) % 4 == 3, 1.0, 0.0 if name == "training" else 0.75).astype(np.float32)
        columns = {
            "id": [f"{name[0]}{row}" for row in range(rows)],
            "era": [
                "eraX" if kind == "live" else f"era{10 * (name == 'validation') + row // 4 + 1}" for row in range(rows)
            ],
            "data_type": [kind] * rows,
            **{f"feature{column}": random.random(rows).astype(np.float32) for column in range(3)},
            "target": np.full(rows, np.nan, dtype=np.float32) if kind == "live" else known,
        }
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    return {
        "OPERATION": "mine",
        "TRAINING": str(tmp_path / "training.parquet"),
        "VALIDATION": str(tmp_path / "validation.parquet"),
        "TESTING": str(tmp_path / "live.parquet"),
        "PREDICTING": str(tmp_path / "out" / "mine.csv"),
        "REPORTING": str(tmp_path / "out" / "mine.json"),
        "STORING": str(tmp_path),
        "MODEL": str(tmp_path / "model"),
    }


def _predictions(path: Path) -> dict[str, float]:
    with path.open(newline="") as stream:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream)}


def _features(path: Path) -> Any:
    return pq.read_table(path)["feature0"].to_numpy()


def _without_fit_tables(paths: dict[str, str]) -> dict[str, str]:
    """Remove the tables of the fit and the predictions; return the environment of a run that only predicts."""
    for name in ("TRAINING", "VALIDATION"):
        Path(paths[name]).unlink()
    shutil.rmtree(Path(paths["PREDICTING"]).parent, ignore_errors=True)
    return {name: value for name, value in paths.items() if name not in ("TRAINING", "VALIDATION")}


def test_fit_learns_again_from_the_rows_of_both_tables(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 0, lines
    assert [line for line in lines if line.startswith("fit of")] == [
        "fit of 12 rows: False None",
        "fit of 20 rows: True 0.25",
    ]
    first, final = 0.5 * 0.25, 0.75 * (3 + 2 + 6 * 0.75) / 20
    validation = _predictions(tmp_path / "model" / "validation.csv")
    assert list(validation) == [f"v{row}" for row in range(8)]
    assert list(validation.values()) == pytest.approx(
        0.1 + first * _features(tmp_path / "validation.parquet"), abs=1e-7
    )
    live = _predictions(tmp_path / "out" / "mine.csv")
    assert list(live) == [f"l{row}" for row in range(6)]
    assert list(live.values()) == pytest.approx(0.1 + final * _features(tmp_path / "live.parquet"), abs=1e-7)


def test_fit_report_has_both_fits_and_the_score(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    assert _end(contract({"mine": MODEL}, **paths, INPUTS="0f3a"))[0] == 0
    report = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert report["rows"] == {"training": 12, "held_out": 0, "validation": 8, "testing": 6}
    assert report["validation"]["rows"] == 8
    assert report["final"] == {"training_rows": 20, "chosen": {"w": pytest.approx(0.75 * 9.5 / 20)}}
    kept = json.loads((tmp_path / "model" / "report.json").read_text())
    assert (kept["validation"], kept["final"]) == (report["validation"], report["final"])
    for output in ("validation.csv", "report.json"):
        assert outputs.is_finished(tmp_path / "model" / output, "0f3a")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (record["operation"], record["inputs"]) == ("mine", "0f3a")
    assert record["features"] == ["feature0", "feature1", "feature2"]
    assert set(record["files"]) == {"saved/arrays.npz", "saved/settings.json", "saved/folder/more.bin"}


def test_fit_complete_predicts_the_same_bytes_without_tables(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    predicting = Path(paths["PREDICTING"])
    before = predicting.read_bytes()
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "model").rglob("*")}
    environment = _without_fit_tables(paths)
    for path in (tmp_path / "model", *(tmp_path / "model").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code, lines = _end(contract({"mine": MODEL}, **environment, INPUTS="other"))
    assert code == 0, lines
    assert predicting.read_bytes() == before
    assert not any(line.startswith("fit of") for line in lines)
    assert lines[0] == f"using the finished fit in {tmp_path / 'model'}"
    # nothing was written to the fit, which root could have done
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "model").rglob("*")} == states
    report = json.loads(Path(paths["REPORTING"]).read_text())
    assert report["rows"] == {"testing": 6}
    assert set(report) == {"operation", "notes", "rows", "seconds", "peak_memory_mib"}


def test_fit_complete_reads_features_in_the_order_of_the_fit(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    before = Path(paths["PREDICTING"]).read_bytes()
    environment = _without_fit_tables(paths)
    live = pq.read_table(tmp_path / "live.parquet")
    pq.write_table(live.select(live.column_names[::-1]), tmp_path / "live.parquet")
    assert _end(contract({"mine": MODEL}, **environment))[0] == 0
    assert Path(paths["PREDICTING"]).read_bytes() == before
    pq.write_table(live.drop_columns(["feature1"]), tmp_path / "live.parquet")
    code, lines = _end(contract({"mine": MODEL}, **environment))
    assert code == 65
    assert "live.parquet: 1 of the 3 features of the training table are missing: feature1" in lines[-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("echo >> {saved}/settings.json", "saved/settings.json: changed after the fit"),
        ("rm {saved}/arrays.npz", "saved/arrays.npz: the file is missing"),
        ("rm -r {saved}", "saved/arrays.npz: the file is missing"),
        ("touch {saved}/estimator.pickle", "saved/estimator.pickle: the file is not of this fit"),
        ("echo {{}} > {saved}/../model.json", "model.json: not the record of a fit"),
        ("echo [1 > {saved}/../model.json", "model.json: not the record of a fit"),
        ('sed -i \'s/"format": 1/"format": 2/\' {saved}/../model.json', "model.json: its format is 2"),
    ],
)
def test_fit_damaged_exits_with_65_and_names_file_and_remedy(
    contract: Contract, paths: dict[str, str], tmp_path: Path, damage: str, message: str
) -> None:
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    os.system(damage.format(saved=tmp_path / "model" / "saved"))  # noqa: S605 - the test's own commands
    Path(paths["PREDICTING"]).unlink()
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 65
    assert lines[-1].startswith("FAILED (65, bad data): ")
    assert message in lines[-1]
    assert lines[-1].endswith("Start the run with force, which makes a new fit.")
    assert not Path(paths["PREDICTING"]).exists()


def test_fit_of_another_operation_exits_with_65(contract: Contract, paths: dict[str, str]) -> None:
    operations = {"mine": MODEL, "other": MODEL}
    assert _end(contract(operations, **paths))[0] == 0
    code, lines = _end(contract(operations, **paths | {"OPERATION": "other"}))
    assert code == 65
    assert "a fit of 'mine', not of 'other'" in lines[-1]


def test_fit_killed_before_the_predictions_is_not_repeated(contract: Contract, paths: dict[str, str]) -> None:
    # the model of live rows sleeps: the fit is complete then
    sleeping = MODEL.replace("def load(task, directory):", "def load(task, directory):\n        time.sleep(600)")
    process = contract({"mine": sleeping}, **paths, HEARTBEAT="0.1")
    record = Path(paths["MODEL"]) / "model.json"
    for _ in process.stdout:
        if record.is_file():
            break
    process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == 75
    assert not Path(paths["PREDICTING"]).exists()
    code, lines = _end(contract({"mine": MODEL}, **_without_fit_tables(paths)))
    assert code == 0, lines
    assert not any(line.startswith("fit of") for line in lines)
    assert Path(paths["PREDICTING"]).exists()


def _stop_in(contract: Contract, operation: str, text: str, paths: dict[str, str]) -> None:
    process = contract({"mine": operation}, **paths, SLEEP="1")
    next(line for line in process.stdout if text in line)
    process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == 75


def test_fit_killed_begins_again_in_an_empty_directory(contract: Contract, paths: dict[str, str]) -> None:
    _stop_in(contract, MODEL, "fit of 12 rows", paths)
    model = Path(paths["MODEL"])
    (model / "leftover").mkdir()
    (model / "leftover" / "file").write_text("x")
    (model / "saved" / "leftover").write_text("x")
    (model / "link").symlink_to(model.parent / "training.parquet")
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 0, lines
    assert {path.name for path in model.iterdir()} == {
        "model.json",
        "saved",
        "report.json",
        "report.json.manifest.json",
        "validation.csv",
        "validation.csv.manifest.json",
    }
    assert not (model / "saved" / "leftover").exists()
    assert (model.parent / "training.parquet").is_file()


def test_make_resumes_with_the_files_of_the_earlier_attempt(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    _stop_in(contract, MAKE, "kept: False, saved: 0", paths)
    code, lines = _end(contract({"mine": MAKE}, **paths))
    assert code == 0, lines
    assert "kept: True, saved: 0" in lines
    assert (tmp_path / "model" / "kept").read_text() == "8"
    assert (tmp_path / "placed").read_text() == "17 6"
    assert json.loads(Path(paths["REPORTING"]).read_text())["rows"] == {"training": 12, "held_out": 0, "testing": 6}
    (tmp_path / "placed").unlink()
    code, lines = _end(contract({"mine": MAKE}, **_without_fit_tables(paths)))
    assert code == 0, lines
    assert not any(line.startswith("kept") for line in lines)
    assert (tmp_path / "placed").read_text() == "17 6"


def test_make_without_testing_applies_nothing(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    assert _end(contract({"mine": MAKE}, **paths | {"TESTING": ""}))[0] == 0
    assert not (tmp_path / "placed").exists()


def test_fit_is_last_leaves_out_the_final_fit(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    code, lines = _end(contract({"mine": MODEL}, **paths, LAST="1"))
    assert code == 0, lines
    assert [line for line in lines if line.startswith("fit of")] == ["fit of 12 rows: False None"]
    live = list(_predictions(tmp_path / "out" / "mine.csv").values())
    assert live == pytest.approx(0.1 + 0.125 * _features(tmp_path / "live.parquet"), abs=1e-7)
    report = json.loads(Path(paths["REPORTING"]).read_text())
    assert (report["final"], report["validation"]["rows"]) == (None, 8)


def test_fit_without_validation_or_model_is_one_fit(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code, lines = _end(contract({"mine": MODEL}, **paths | {"VALIDATION": "", "MODEL": ""}))
    assert code == 0, lines
    assert sum(line.startswith("fit of") for line in lines) == 1
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    assert json.loads(Path(paths["REPORTING"]).read_text())["final"] is None


def test_fit_without_testing_only_saves(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    code, lines = _end(contract({"mine": MODEL}, **paths | {"TESTING": "", "PREDICTING": ""}))
    assert code == 0, lines
    assert (tmp_path / "model" / "model.json").is_file()
    assert lines[-1].endswith("MiB: fitted")


@pytest.mark.parametrize(
    ("operation", "environment", "message"),
    [
        (MAKE, {"MODEL": ""}, "MODEL is not set: the operation 'mine' writes its files into this directory."),
        (MAKE, {"STORING": "/none"}, "STORING is '/none', which may not be written to"),
        (MODEL, {"PREDICTING": ""}, "PREDICTING is not set"),
        (MODEL, {"MODEL": "", "TESTING": ""}, "TESTING is not set"),
        (MODEL, {"MODEL": "{folder}"}, "MODEL is '{folder}', which contains TRAINING ({folder}/training.parquet)"),
        (MODEL, {"MODEL": "{folder}/x", "STORING": "{folder}/x"}, "MODEL is '{folder}/x', which contains STORING"),
        (
            MODEL,
            {"MODEL": "{folder}/live.parquet/model"},
            "MODEL is '{folder}/live.parquet/model': {folder}/live.parquet is not a directory",
        ),
        (MODEL, {"MODEL": "{folder}/file"}, "MODEL is '{folder}/file': {folder}/file is not a directory"),
    ],
)
def test_fit_unusable_paths_exit_with_64_before_the_work(
    contract: Contract, paths: dict[str, str], tmp_path: Path, operation: str, environment: dict[str, str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    changed = {name: value.format(folder=tmp_path) for name, value in environment.items()}
    code, lines = _end(contract({"mine": operation}, **paths | changed))
    assert code == 64, lines
    assert message.format(folder=tmp_path) in lines[-1]
    assert len(lines) == 1
    assert (tmp_path / "training.parquet").is_file()


@pytest.mark.parametrize("table", ["VALIDATION", "TESTING"])
def test_fit_invalid_other_table_fails_before_the_fit(contract: Contract, paths: dict[str, str], table: str) -> None:
    Path(paths[table]).write_bytes(b"PAR1")
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 65
    assert Path(paths[table]).name in lines[-1]
    assert not any(line.startswith("fit of") for line in lines)


def test_operation_with_its_own_run_ignores_model(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    former = """
    from numerai_contract.task import TrainingSummary

    def run(task):
        features = task.tournament.features()
        task.write_predictions(0.1 + 0.5 * features[:, 0], TrainingSummary(len(task.training)))
    """
    for _ in range(2):
        code, lines = _end(contract({"mine": former}, **paths))
        assert code == 0, lines
        assert lines[-1].endswith(f"fitted; predictions for 6 rows in {paths['PREDICTING']}")
    assert not (tmp_path / "model").exists()
    assert len(_predictions(tmp_path / "out" / "mine.csv")) == 6


def test_self_test_checks_the_predictions_of_the_finished_fit(contract: Contract) -> None:
    code, lines = _end(
        contract({"mine": MODEL, "make": MAKE + "\n    def check_self_test(storing): pass"}, "--self-test")
    )
    assert code == 0, lines
    forgetful = MODEL.replace('float(arrays["weight"])', "float(arrays['weight']) * (0.5 + time.monotonic() % 0.1)")
    code, lines = _end(contract({"mine": forgetful}, "--self-test"))
    assert code == 70
    assert "its finished fit gives other outputs than its first run" in lines[-1]
