"""A run's directory with predictions, and the simulated tournament it submits to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.numerai_api.submission_files import RunPredictions, find_predictions
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.task_records import TaskRecord
from practice.season import VERSION, Season
from practice.server import PracticeServer
from practice.submission_store import RoundEntry
from tests.clocked_season import NumeraisRound
from tests.generated_results import DATASET, add_task

KEYS = ("PUBLIC-ID-OF-TESTS", "secret-key-of-tests")
NUMBER = 1334
SATURDAY = NumeraisRound(NUMBER).opens + timedelta(hours=1)
TUESDAY_ROUND = 1330
MODELS = ("svm", "xgboost")
PREDICTIONS = (*MODELS, "ensemble_selection")


def make_run(season: Season, number: int = NUMBER, run: str = "0123456789ab") -> RunLayout:
    """Make a run's directory with its live table, the dataset, and the results of two models and an ensemble."""
    layout = DataLayout(load_settings().data_dir).run(str(number), run)
    layout.directory.mkdir(parents=True)
    columns = ["id", "data_type", "era"]
    for name, path in (("live", layout.live), ("validation", layout.data.dataset(DATASET).validation)):
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(season.file(f"{VERSION}/{name}.parquet", number), columns=columns)
        pq.write_table(table.replace_schema_metadata(None), path)
    for index, name in enumerate(PREDICTIONS):
        write_predictions(layout, name, predictions_of(layout.live, index + 7), variant=("first", number))
    return layout


def predictions_of(path: Path, factor: int) -> pa.Table:
    """Make predictions for the rows of a table."""
    ids = pq.read_table(path, columns=["id"])["id"]
    return pa.table({"id": ids, "prediction": [(row * factor % 97 + 1) / 99 for row in range(len(ids))]})


def write_predictions(layout: RunLayout, name: str, live: pa.Table, *, variant: object = "another") -> TaskRecord:
    """Give a run a new result with these predictions of its live rows; results of other keys stay."""
    is_ensemble = name.startswith("ensemble_")
    validation = predictions_of(layout.data.dataset(DATASET).validation, 5)

    def fit(directory: Path) -> None:
        _write(directory / (f"validation/{name}.csv" if is_ensemble else "validation.csv"), validation)

    def predict(directory: Path) -> None:
        _write(directory / "predictions" / f"{name}.csv", live)

    return add_task(layout, "ensemble" if is_ensemble else name, fit=fit, prediction=predict, variant=variant)


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(exist_ok=True)
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(quoting_style="none", quoting_header="none"))
    write_manifest(path, rows=table.num_rows)


def find_all(layout: RunLayout, chosen: Mapping[str, str]) -> dict[str, RunPredictions]:
    """Find the predictions for models at Numerai, as the task `submit` does."""
    return {name: find_predictions(layout, model) for name, model in chosen.items()}


def read_predictions(layout: RunLayout, name: str) -> pa.Table:
    return pa.csv.read_csv(layout.predictions(name))


def model_id(server: PracticeServer, name: str) -> str:
    return next(model.id for model in server.store.models() if model.name == name)


def submitted(server: PracticeServer, name: str) -> list[pa.Table]:
    """Give the files that were submitted for a model, the newest first."""
    submissions = server.store.submissions(model_id(server, name))
    return [pa.csv.read_csv(server.store.file(submission)) for submission in submissions]


def entries(server: PracticeServer, name: str) -> list[RoundEntry]:
    """Give a model's latest entries, the newest round first."""
    return server.store.latest(model_id(server, name))


def uploads(server: PracticeServer) -> int:
    return len(server.requests.entries(on="upload"))
