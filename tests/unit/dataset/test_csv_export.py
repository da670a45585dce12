from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.dataset.csv_export import write_csv_tables
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest, write_manifest


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path)
    for path, target in ((layout.training, 1.0), (layout.tournament, float("nan"))):
        table = pa.table(
            {
                "id": ["a", "b"],
                "era": ["era1", "era2"],
                "data_type": ["train", "train"],
                "feature1": pa.array([0.25, float("nan")], pa.float32()),
                "feature2": pa.array([1, 4], pa.int8()),
                "target": pa.array([target, 0.0], pa.float32()),
            }
        )
        pq.write_table(table, path)
        write_manifest(path, rows=2)
    return layout


def test_csv_has_the_same_rows_and_gaps_where_values_are_missing(layout: RunLayout) -> None:
    write_csv_tables(layout)
    assert layout.training_csv.read_text().splitlines() == [
        "id,era,data_type,feature1,feature2,target",
        "a,era1,train,0.25,1,1",
        "b,era2,train,,4,0",
    ]
    assert layout.tournament_csv.read_text().splitlines()[1] == "a,era1,train,0.25,1,"
    assert verified_manifest(layout.training_csv)


def test_csv_is_made_once_and_again_when_the_table_changed(layout: RunLayout) -> None:
    write_csv_tables(layout)
    before = layout.training_csv.stat().st_mtime_ns
    write_csv_tables(layout)
    assert layout.training_csv.stat().st_mtime_ns == before
    pq.write_table(pq.read_table(layout.training).slice(0, 1), layout.training)
    write_manifest(layout.training, rows=1)
    write_csv_tables(layout)
    assert len(layout.training_csv.read_text().splitlines()) == 2
