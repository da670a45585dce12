"""A fit of several targets in the real process: one fit each, the blend of their ranks, and attempts that continue."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_contract.blending import blend

pytestmark = pytest.mark.slow

Contract = Callable[..., Any]

# the model is the feature with the largest correlation with the target: other targets have other features
MODEL = """
    import time
    import numpy as np
    from numerai_contract import saved_state
    from numerai_contract.feature_selection import most_correlated
    from numerai_contract.fitting import Fitted
    from numerai_contract.task import TrainingSummary

    class Model:
        def __init__(self, scale):
            self.scale = scale

        def predict(self, task, table):
            return task.predict_rows(table, table.batches(), lambda block: 0.1 + self.scale * block[:, 0])

        def save(self, directory):
            saved_state.save(directory, {"scale": np.array(self.scale)}, {})

    def fit(task, earlier=None):
        known = ~np.isnan(task.training.targets)
        name, embargo = task.training.target_name, task.parameters.embargo
        task.progress.log(f"fit of {name}: {known.sum()} rows, final: {task.is_final}, embargo {embargo}")
        if task.parameters.get_str("SLEEP", "") == name:
            time.sleep(600)
        if earlier is None:
            task.use_features(most_correlated(task.training, known, 1))
        scale = 0.8 if name == "target" else 0.001
        return Fitted(Model(scale), TrainingSummary(int(known.sum()), chosen={"scale": scale}), 1)

    def load(task, directory):
        return Model(float(saved_state.load(directory).arrays["scale"]))
"""
TARGETS = {"target": 0, "target_b": 2, "target_c": 1}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """Write tables of 40, 30 and 12 rows whose targets follow a feature each, and return the environment of a run."""
    random = np.random.default_rng(2)
    for name, rows, kind in (("training", 40, "train"), ("validation", 30, "validation"), ("live", 12, "live")):
        features = random.random((3, rows)).astype(np.float32)
        columns: dict[str, Any] = {
            "id": [f"{name[0]}{row}" for row in range(rows)],
            "era": [
                "eraX" if kind == "live" else f"{10 * (kind == 'validation') + row % 3 + 1:04d}" for row in range(rows)
            ],
            "data_type": [kind] * rows,
            **{f"feature{column}": features[column] for column in range(3)},
        }
        for target, column in (TARGETS if kind != "live" else {"target": 0}).items():
            columns[target] = np.full(rows, np.nan, np.float32) if kind == "live" else (features[column] > 0.5) / 1.0
        if kind != "live":
            columns["target_b"][:5] = np.nan
        numbers = {name: pa.float32() for name in columns if name.startswith("target")}
        table = pa.table({key: pa.array(value, numbers.get(key)) for key, value in columns.items()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    return {
        "OPERATION": "mine",
        "TRAINING": str(tmp_path / "training.parquet"),
        "VALIDATION": str(tmp_path / "validation.parquet"),
        "TESTING": str(tmp_path / "live.parquet"),
        "PREDICTING": str(tmp_path / "out" / "mine.csv"),
        "REPORTING": str(tmp_path / "out" / "mine.json"),
        "STORING": str(tmp_path),
        "MODEL": str(tmp_path / "model"),
        "TARGETS": "target_b,target_c",
        "EMBARGO": "16",
        "INPUTS": "0f3a",
    }


def _end(process: Any) -> tuple[int, list[str]]:
    printed, errors = process.communicate(timeout=60)
    assert errors == ""
    return process.returncode, printed.splitlines()


def _predictions(path: Path) -> list[float]:
    with path.open(newline="") as stream:
        return [float(row["prediction"]) for row in csv.DictReader(stream)]


def _blend(table: Path, targets: dict[str, int] = TARGETS) -> Any:
    columns = pq.read_table(table)
    eras = np.array([int(era) if era.isdecimal() else -1 for era in columns["era"].to_pylist()], dtype=np.int32)
    return blend([columns[f"feature{column}"].to_numpy() for column in targets.values()], eras)


def _fits(lines: list[str]) -> list[str]:
    return [line.split(":")[0].removeprefix("fit of ") for line in lines if line.startswith("fit of")]


def test_targets_fits_are_blended_by_the_mean_of_their_ranks(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 0, lines
    # each learns from the rows where its own target is known
    assert [line for line in lines if line.startswith("fit of")] == [
        f"fit of {name}: {rows} rows, final: {final}, embargo 16"
        for name, first, both in (("target", 40, 70), ("target_b", 35, 60), ("target_c", 40, 70))
        for rows, final in ((first, False), (both, True))
    ]
    for table, predicted in (("validation", tmp_path / "model/validation.csv"), ("live", tmp_path / "out/mine.csv")):
        assert _predictions(predicted) == pytest.approx(_blend(tmp_path / f"{table}.parquet"), abs=1e-9)


def test_targets_finished_fit_predicts_the_same_bytes_without_tables(contract: Contract, paths: dict[str, str]) -> None:
    predicting = Path(paths["PREDICTING"])
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    before = predicting.read_bytes()
    predicting.unlink()
    for name in ("TRAINING", "VALIDATION"):
        Path(paths.pop(name)).unlink()
    for environment in (paths, {name: value for name, value in paths.items() if name != "TARGETS"}):
        code, lines = _end(contract({"mine": MODEL}, **environment))
        assert code == 0, lines
        assert not _fits(lines)
        assert predicting.read_bytes() == before


def test_targets_same_seed_gives_the_same_bytes_with_or_without_model(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    found = []
    for model in (tmp_path / "one", tmp_path / "two", ""):
        assert _end(contract({"mine": MODEL}, **paths | {"MODEL": str(model)}))[0] == 0
        found.append(Path(paths["PREDICTING"]).read_bytes())
    assert found[0] == found[1] == found[2]
    for name in ("model.json", "validation.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_targets_report_has_each_fit_and_the_score_of_the_blend(contract: Contract, paths: dict[str, str]) -> None:
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    report = json.loads(Path(paths["REPORTING"]).read_text())
    assert list(report["targets"]) == ["target", "target_b", "target_c"]
    assert report["rows"] == {"training": 40, "held_out": 0, "validation": 30, "testing": 12}
    assert report["features"] == 3
    assert report["chosen"] == {"scale": 0.8}
    own = report["targets"]["target_b"]
    assert own["rows"] == {"training": 35, "held_out": 0, "validation": 30}
    assert (own["features"], own["final"]["training_rows"], own["chosen"]) == (1, 60, {"scale": 0.001})
    # scored on its own target, and the blend on the main one
    assert own["validation"]["rows"] == 25
    assert own["validation"]["correlation"] > 0.75
    assert report["validation"]["rows"] == 30
    assert 0 < report["validation"]["correlation"] < 0.75
    assert any("mean of the ranks" in note for note in report["notes"])


def _stop_in_the_second_fit(contract: Contract, paths: dict[str, str]) -> None:
    process = contract({"mine": MODEL}, **paths, SLEEP="target_b")
    next(line for line in process.stdout if line.startswith("fit of target_b"))
    process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == 75


def test_targets_killed_attempt_continues_with_the_next_target(
    contract: Contract, paths: dict[str, str], tmp_path: Path
) -> None:
    assert _end(contract({"mine": MODEL}, **paths | {"MODEL": str(tmp_path / "whole")}))[0] == 0
    expected = Path(paths["PREDICTING"]).read_bytes()
    _stop_in_the_second_fit(contract, paths)
    assert not (tmp_path / "model" / "model.json").exists()
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 0, lines
    assert "target 1 of 3 (target): an earlier attempt has finished its fit" in lines
    assert _fits(lines) == ["target_b", "target_b", "target_c", "target_c"]
    assert Path(paths["PREDICTING"]).read_bytes() == expected
    for name in ("model.json", "validation.csv"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("change", ["other inputs", "no inputs", "damaged predictions", "damaged model"])
def test_targets_attempt_with_another_state_makes_all_fits(
    contract: Contract, paths: dict[str, str], tmp_path: Path, change: str
) -> None:
    _stop_in_the_second_fit(contract, paths)
    own = tmp_path / "model" / "targets" / "target"
    if change.startswith("damaged"):
        damaged = own / ("validation.csv" if change == "damaged predictions" else "saved/settings.json")
        damaged.write_text("x")
    else:
        paths["INPUTS"] = "1234" if change == "other inputs" else ""
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 0, lines
    assert _fits(lines) == [name for name in TARGETS for _ in range(2)]


def test_targets_damaged_fit_of_one_exits_with_65(contract: Contract, paths: dict[str, str], tmp_path: Path) -> None:
    assert _end(contract({"mine": MODEL}, **paths))[0] == 0
    with (tmp_path / "model/targets/target_c/saved/settings.json").open("a") as stream:
        stream.write("\n")
    code, lines = _end(contract({"mine": MODEL}, **paths))
    assert code == 65
    assert "model/targets/target_c/saved/settings.json: changed after the fit" in lines[-1]


@pytest.mark.parametrize(
    ("targets", "code", "message"),
    [
        ("target_b,target_none", 65, "training.parquet: column 'target_none' is missing"),
        ("target_b,target_b", 64, "TARGETS is 'target_b,target_b': allowed are different columns"),
        ("target", 64, "TARGETS is 'target': allowed are different columns"),
        ("target_../x", 64, "TARGETS is 'target_../x': allowed are"),
    ],
)
def test_targets_unusable_fail_before_the_first_fit(
    contract: Contract, paths: dict[str, str], targets: str, code: int, message: str
) -> None:
    found, lines = _end(contract({"mine": MODEL}, **paths | {"TARGETS": targets}))
    assert found == code
    assert message in lines[-1]
    assert not _fits(lines)


@pytest.mark.parametrize("operation", ["def run(task): pass", "def make(task): pass", f"RESUMES = True{MODEL}"])
def test_targets_operation_of_one_target_exits_with_64(
    contract: Contract, paths: dict[str, str], operation: str
) -> None:
    code, lines = _end(contract({"mine": operation.replace("\n    ", "\n")}, **paths))
    assert code == 64, lines
    assert "the operation 'mine' learns one target. Remove `several_targets` from its entry in models.yaml" in lines[-1]
