"""A run's directory with predictions, and the simulated tournament it submits to."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.manifests import write_manifest
from practice.season import VERSION, Season
from practice.server import PracticeServer
from practice.submission_store import RoundEntry
from tests.clocked_season import NumeraisRound

KEYS = ("PUBLIC-ID-OF-TESTS", "secret-key-of-tests")
NUMBER = 1334
SATURDAY = NumeraisRound(NUMBER).opens + timedelta(hours=1)
TUESDAY_ROUND = 1330
MODELS = ("svm", "xgboost")
PREDICTIONS = (*MODELS, "ensemble_selection")


def make_run(season: Season, number: int = NUMBER) -> RunLayout:
    """Make a run's directory, with the tournament table and the predictions of two models and an ensemble."""
    layout = DataLayout(load_settings().data_dir).run(str(number), "0123456789ab")
    layout.directory.mkdir(parents=True)
    live, validation = (
        pq.read_table(season.file(f"{VERSION}/{name}.parquet", number), columns=["id", "data_type", "era"])
        for name in ("live", "validation")
    )
    table = pa.concat_tables([validation, live]).replace_schema_metadata(None)
    pq.write_table(table, layout.tournament)
    for index, name in enumerate(PREDICTIONS):
        values = pa.array([(row * (index + 7) % 97 + 1) / 99 for row in range(table.num_rows)])
        write_predictions(layout, name, pa.table({"id": table["id"], "prediction": values}))
    return layout


def write_predictions(layout: RunLayout, name: str, table: pa.Table) -> None:
    layout.predictions_directory.mkdir(exist_ok=True)
    pa.csv.write_csv(table, layout.predictions(name), pa.csv.WriteOptions(quoting_style="none"))
    write_manifest(layout.predictions(name), rows=table.num_rows)


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
