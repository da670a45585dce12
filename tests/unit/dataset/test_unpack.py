"""Unpacking of valid and invalid raw datasets of both layouts, from real files."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError, DiskFullError, NotFoundError, PipelineError
from numerai_pipeline.dataset import archive, id_checks, tables
from numerai_pipeline.dataset import plan as dataset_plan
from numerai_pipeline.dataset import unpack as dataset
from numerai_pipeline.dataset.tables import era_number
from numerai_pipeline.dataset.unpack import UnpackedDataset, unpack
from numerai_pipeline.storage import disk, manifests, progress
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import read_manifest, verified_manifest
from tests.unit.dataset.raw_files import (
    FEATURES,
    TOURNAMENT,
    TRAINING,
    V5_FEATURES,
    archive_dataset,
    as_downloaded,
    classic_dataset,
    csv_row,
    csv_table,
    features_json,
    tournament_rows,
    training_rows,
    v5_dataset,
    v5_table,
    v5_tables,
    write_zip,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_pipeline.dataset.raw import RawDataset

ROOT = Path(__file__).resolve().parents[3]
HEADER = ("id", "era", "data_type", *FEATURES, "target")
OUTPUTS = ["tournament.parquet", "tournament.parquet.manifest.json"]
OUTPUTS += ["training.parquet", "training.parquet.manifest.json"]


def files_in(layout: RunLayout) -> list[str]:
    directory = layout.directory
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "run")


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def unpacked(layout: RunLayout) -> Callable[..., UnpackedDataset]:
    """Unpack with default parameters."""

    def attempt(raw: RawDataset, **choices: Any) -> UnpackedDataset:
        usual = {"feature_set": "small", "target": None, "every_nth_era": 1, "inputs": "hash"}
        return unpack(as_downloaded(raw), layout, **{**usual, **choices})

    return attempt


@pytest.fixture
def refused(layout: RunLayout, unpacked: Callable[..., UnpackedDataset]) -> Callable[..., str]:
    """Unpack an invalid dataset; check that no file remains, and return the message."""

    def attempt(raw: RawDataset, error: type[PipelineError] = BadInputError, **choices: Any) -> str:
        with pytest.raises(error) as caught:
            unpacked(raw, **choices)
        assert files_in(layout) == []
        return str(caught.value)

    return attempt


def read(path: Path) -> pa.Table:
    return pq.read_table(path)


def rows_with(column: str, row: int, value: str, rows: list[list[str]]) -> str:
    """Set a value in one row (from 1) of a table."""
    rows[row - 1][HEADER.index(column)] = value
    return csv_table(rows)


class TestClassic:
    def test_tables(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        outcome = unpacked(classic_dataset(raw_dir))

        training, tournament = read(layout.training), read(layout.tournament)
        assert training.schema.names == list(HEADER)
        assert training.schema.equals(tournament.schema)
        assert training.schema.types == [pa.string()] * 3 + [pa.float32()] * 4
        assert training["id"].to_pylist() == [row[0] for row in training_rows()]
        assert training["feature2"].to_pylist() == [0.22499999403953552] * 24
        assert tournament["data_type"].to_pylist() == ["validation", "validation", "test", "live"]
        assert tournament["era"].to_pylist() == ["era121", "era122", "eraX", "eraX"]
        np.testing.assert_array_equal(tournament["target"].to_numpy(), np.array([0, 1, np.nan, np.nan], np.float32))
        assert tournament["target"].null_count == 0, "unknown is NaN, not null"
        assert json.loads(training.schema.metadata[b"numerai"]) == {
            "target": "target",
            "feature_set": "all",
            "source": "archive",
        }
        assert (outcome.training.rows, outcome.training.eras, outcome.features) == (24, 6, 3)
        assert outcome.training.data_types == {"train": 24}
        assert outcome.tournament.data_types == {"validation": 2, "test": 1, "live": 1}
        assert UnpackedDataset.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
        assert files_in(layout) == OUTPUTS

    def test_manifests(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        unpacked(classic_dataset(raw_dir))
        for path, rows in ((layout.training, 24), (layout.tournament, 4)):
            manifest = verified_manifest(path, inputs="hash")
            assert manifest is not None
            assert (manifest.rows, manifest.columns) == (rows, list(HEADER))

    @pytest.mark.parametrize(
        "names",
        [
            (f"numerai_dataset_100/{TRAINING}", f"numerai_dataset_100/{TOURNAMENT}"),
            (f"round100_{TRAINING}", f"a/b/round100_{TOURNAMENT}"),
            (TRAINING.upper(), TOURNAMENT),
        ],
    )
    def test_files_are_found_by_name(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], names: tuple[str, str]
    ) -> None:
        assert unpacked(classic_dataset(raw_dir, names=names)).training.rows == 24

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace("\n", "\r\n"),
            lambda text: "\ufeff" + text,
            lambda text: text.rstrip("\n"),
            lambda text: text.replace("\n", "\n\n"),
            lambda text: "\n".join(",".join(f'"{value}"' for value in line.split(",")) for line in text.split()),
        ],
        ids=["CRLF", "BOM", "no last line end", "empty lines", "quoted"],
    )
    def test_harmless_varieties(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        change: Callable[[str], str],
    ) -> None:
        training, tournament = change(csv_table(training_rows())), change(csv_table(tournament_rows()))
        outcome = unpacked(classic_dataset(raw_dir, training, tournament))
        assert (outcome.training.rows, outcome.tournament.rows) == (24, 4)
        assert read(layout.training)["id"][0].as_py() == "n001000"
        assert np.isnan(read(layout.tournament)["target"].to_numpy()[3])

    def test_other_column_orders_and_other_columns(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        order = [6, 5, 0, 1, 3, 2, 4]
        shuffled = [HEADER[place] for place in order]
        tournament = csv_table(
            [[*(row[place] for place in order), "x"] for row in tournament_rows()], [*shuffled, "note"]
        )
        unpacked(classic_dataset(raw_dir, None, tournament))
        assert read(layout.tournament).schema.names == list(HEADER)
        assert read(layout.tournament)["feature3"][0].as_py() == pytest.approx(0.325)

    def several_targets(self, raw_dir: Path) -> RawDataset:
        header = (*HEADER[:-1], "target_bernie", "target_charles")
        training = [[*row, str(1 - int(row[-1]))] for row in training_rows()]
        tournament = [[*row, row[-1]] for row in tournament_rows()]
        return classic_dataset(raw_dir, csv_table(training, header), csv_table(tournament, header))

    def test_the_first_target_is_the_default(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with caplog.at_level(logging.INFO):
            assert unpacked(self.several_targets(raw_dir)).target == "target_bernie"
        assert "using the default target 'target_bernie' of: target_bernie, target_charles" in caplog.text
        assert read(layout.training).schema.names == list(HEADER)
        assert read(layout.training)["target"].to_pylist()[:2] == [0, 1]

    def test_another_target(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        assert unpacked(self.several_targets(raw_dir), target="target_charles").target == "target_charles"
        assert read(layout.training)["target"].to_pylist()[:2] == [1, 0]
        assert json.loads(read(layout.training).schema.metadata[b"numerai"])["target"] == "target_charles"

    def test_an_unknown_target(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        message = refused(self.several_targets(raw_dir), NotFoundError, target="target_ken")
        assert "'target_ken'" in message
        assert "target_bernie, target_charles" in message

    def test_kazutsugi_and_named_features(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        header = ("id", "era", "data_type", "feature_wisdom1", "feature_charm1", "feature_wisdom2", "target_kazutsugi")
        raw = classic_dataset(raw_dir, csv_table(training_rows(), header), csv_table(tournament_rows(), header))
        assert unpacked(raw).target == "target_kazutsugi"
        assert read(layout.training).schema.names == [*header[:-1], "target"]

    @pytest.mark.parametrize(("nth", "kept"), [(2, [2, 4, 6]), (4, [2, 6]), (6, [6]), (52, [6])])
    def test_thinning_keeps_the_newest_eras(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        nth: int,
        kept: list[int],
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir), every_nth_era=nth)
        assert sorted(set(read(layout.training)["era"].to_pylist())) == [f"era{era}" for era in kept]
        assert outcome.training.rows == 4 * len(kept)
        assert outcome.tournament.rows == 4

    def test_eras_are_ordered_by_number(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        unpacked(classic_dataset(raw_dir, csv_table(training_rows(eras=11))), every_nth_era=5)
        assert list(dict.fromkeys(read(layout.training)["era"].to_pylist())) == ["era1", "era6", "era11"]

    def test_missing_features_become_nan_and_are_counted(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir, rows_with("feature2", 3, "", training_rows())))
        assert outcome.training.missing == 1
        assert np.isnan(read(layout.training)["feature2"].to_numpy()[2])
        assert "1 feature values are missing" in caplog.text

    def test_training_rows_without_a_target_are_left_out(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir, rows_with("target", 3, "", training_rows())))
        assert (outcome.training.rows, outcome.training.without_target) == (23, 1)
        assert "n001002" not in read(layout.training)["id"].to_pylist()

    def test_row_groups_do_not_depend_on_batches(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from numerai_pipeline.dataset import csv_source

        raw = classic_dataset(raw_dir)
        monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
        unpacked(raw)
        first = layout.training.read_bytes()
        monkeypatch.setattr(csv_source, "_READ_BYTES", 100)
        unpacked(raw, force=True)
        metadata = pq.ParquetFile(layout.training).metadata
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [7, 7, 7, 3]
        assert layout.training.read_bytes() == first


BROKEN_TRAINING: dict[str, tuple[str | bytes, list[str]]] = {
    "a word": (
        rows_with("feature3", 17, "abc", training_rows()),
        [f"{TRAINING}: row 17, column 'feature3': 'abc' is not a number"],
    ),
    "a blank": (rows_with("feature1", 2, " ", training_rows()), ["row 2, column 'feature1': ' ' is not a number"]),
    "a target word": (rows_with("target", 5, "yes", training_rows()), ["row 5, column 'target': 'yes' is not a n"]),
    "infinite": (rows_with("feature1", 4, "-inf", training_rows()), ["row 4, column 'feature1': -inf is infinite"]),
    "too large": (rows_with("feature1", 4, "1e39", training_rows()), ["row 4, column 'feature1'", "too large"]),
    "target above": (rows_with("target", 9, "1.5", training_rows()), ["row 9, column 'target': 1.5 is outside 0 to 1"]),
    "target below": (rows_with("target", 9, "-0.1", training_rows()), ["row 9, column 'target': -0.1 is outside"]),
    "target just above": (
        rows_with("target", 9, "1.0000001", training_rows()),
        ["row 9, column 'target': 1.0000001 is outside 0 to 1"],
    ),
    "target infinite": (rows_with("target", 9, "inf", training_rows()), ["row 9, column 'target': inf is outside"]),
    "empty id": (rows_with("id", 6, "", training_rows()), ["row 6, column 'id'", "empty"]),
    "blank id": (rows_with("id", 6, "  ", training_rows()), ["row 6, column 'id'", "empty"]),
    "empty era": (rows_with("era", 6, "", training_rows()), ["row 6, column 'era'", "empty"]),
    "era without number": (rows_with("era", 6, "eraX", training_rows()), ["row 6, column 'era': 'eraX' has no number"]),
    "data type": (rows_with("data_type", 8, "trian", training_rows()), ["row 8, column 'data_type': 'trian'", "train"]),
    "live in training": (rows_with("data_type", 8, "live", training_rows()), ["row 8", "'live'", "swapped"]),
    "same id": (
        rows_with("id", 20, "n001002", training_rows()),
        [f"{TRAINING}: row 20, column 'id': 'n001002' is also in row 3 of {TRAINING}"],
    ),
    "too many values": (
        csv_table([*training_rows(), [*csv_row("x", "era6", "train", "1"), "7"]]),
        ["row 25 has 8 val"],
    ),
    "too few values": (csv_table([*training_rows(), ["x", "era6"]]), ["row 25 has 2 values", "header has 7"]),
    "cut off": (csv_table(training_rows())[:-12], ["row 24 has 5 values"]),
    "stray quote": (csv_table(training_rows()).replace("n003001", '"n003001'), ["row 10"]),
    "empty": ("", ["file is empty"]),
    "header only": (csv_table([]), ["no row of data"]),
    "header without line end": (csv_table([]).strip(), ["no row of data"]),
    "header and empty lines": (csv_table([]) + "\n\n", ["no row of data"]),
    "latin-1": (
        csv_table(training_rows()).encode().replace(b"n003001", b"n\xe9003"),
        ["line 11 is not UTF-8", "0xe9", TRAINING],
    ),
    "cut in a character": (csv_table(training_rows()).encode() + b"n\xc3", ["line 26 is not UTF-8 (byte 0xc3)"]),
    "UTF-16": (csv_table(training_rows()).encode("utf-16"), ["UTF-"]),
    "binary": (bytes(range(256)) * 50, ["UTF-8"]),
    "not CSV": ("x" * 1_100_000, ["first line is longer"]),
    "HTML": ("<html>\n<body>Not found</body>\n</html>\n", ["columns id, era, data_type are missing", "<html>"]),
    "no era": (csv_table(training_rows(), ("id", "age", *HEADER[2:])), ["column 'era' is missing (found: id, age, "]),
    "no features": (
        csv_table(training_rows(), ("id", "era", "data_type", "f1", "f2", "f3", "target")),
        ["no column starts with 'feature'", "f1"],
    ),
    "no target": (csv_table(training_rows(), (*HEADER[:-1], "label")), ["column 'target' is missing"]),
    "a column twice": (csv_table(training_rows(), (*HEADER[:4], "feature1", *HEADER[5:])), ["'feature1'", "more than"]),
    "one class": (
        csv_table([[*row[:-1], "1"] for row in training_rows()]),
        ["24 are above 0.5 and 0 below", "classes"],
    ),
    "half only": (
        csv_table([[*row[:-1], "0.5" if row[-1] == "1" else "0"] for row in training_rows()]),
        ["0 are above 0.5 and 12 below"],
    ),
    "no known target": (csv_table([[*row[:-1], ""] for row in training_rows()]), ["none of 24 rows has a known"]),
    "other features": (
        csv_table(training_rows(), (*HEADER[:5], "feature9", "target")),
        ["different features", "only in training feature9", "only in tournament feature3"],
    ),
}

BROKEN_TOURNAMENT: dict[str, tuple[str | bytes, list[str]]] = {
    "id of training": (
        rows_with("id", 2, "n002001", tournament_rows()),
        [f"{TOURNAMENT}: row 2, column 'id': 'n002001' is also in row 6 of {TRAINING}"],
    ),
    "same id": (
        rows_with("id", 4, "t1", tournament_rows()),
        [f"row 4, column 'id': 't1' is also in row 3 of {TOURNAMENT}"],
    ),
    "train in tournament": (rows_with("data_type", 1, "train", tournament_rows()), ["row 1", "validation, test, live"]),
    "empty data type": (rows_with("data_type", 3, "", tournament_rows()), ["row 3, column 'data_type': ''"]),
    "a word": (
        rows_with("feature2", 4, "NaNN", tournament_rows()),
        [f"{TOURNAMENT}: row 4, column 'feature2': 'NaNN'"],
    ),
    "target": (rows_with("target", 2, "2", tournament_rows()), ["row 2, column 'target': 2 is outside"]),
    "no target": (csv_table(tournament_rows(), (*HEADER[:-1], "label")), [f"{TOURNAMENT}: column 'target' is missing"]),
    "one feature more": (
        csv_table([[*row, "1"] for row in tournament_rows()], (*HEADER, "feature4")),
        ["only in training none; only in tournament feature4"],
    ),
    "header only": (csv_table([]), [f"{TOURNAMENT}: there is a header but no row"]),
    "empty": (b"", [f"{TOURNAMENT}: the file is empty"]),
}


class TestBrokenClassic:
    @pytest.mark.parametrize("case", BROKEN_TRAINING)
    def test_training(self, raw_dir: Path, refused: Callable[..., str], case: str) -> None:
        content, parts = BROKEN_TRAINING[case]
        message = refused(classic_dataset(raw_dir, training=content))
        assert TRAINING in message
        for part in parts:
            assert part in message

    @pytest.mark.parametrize("case", BROKEN_TOURNAMENT)
    def test_tournament(self, raw_dir: Path, refused: Callable[..., str], case: str) -> None:
        content, parts = BROKEN_TOURNAMENT[case]
        message = refused(classic_dataset(raw_dir, tournament=content))
        assert TOURNAMENT in message
        for part in parts:
            assert part in message

    def test_the_row_is_right_far_into_a_file(
        self, raw_dir: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from numerai_pipeline.dataset import csv_source

        monkeypatch.setattr(csv_source, "_READ_BYTES", 2000)
        for column, value in (("feature2", "abc"), ("feature2", "inf"), ("id", "n001002"), ("era", "eraX")):
            table = rows_with(column, 3001, value, training_rows(eras=900))
            assert "row 3,001, column" in refused(classic_dataset(raw_dir, table)), column

    @pytest.mark.parametrize(
        ("members", "parts"),
        [
            ({TRAINING: "x"}, f"has no {TOURNAMENT} (found: {TRAINING})"),
            ({"readme.txt": "x"}, f"has no {TRAINING} (found: readme.txt)"),
            ({f"a/{TRAINING}": "x", f"b/{TRAINING}": "y", TOURNAMENT: "z"}, "has 2 files that could be"),
        ],
    )
    def test_files(self, raw_dir: Path, refused: Callable[..., str], members: dict[str, str], parts: str) -> None:
        raw_dir.mkdir()
        assert parts in refused(archive_dataset(write_zip(raw_dir / "bad.zip", members)))

    def test_a_missing_archive(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        assert "gone.zip" in refused(archive_dataset(raw_dir / "gone.zip"), NotFoundError)

    def test_a_dangerous_archive(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw_dir.mkdir()
        assert "leads out" in refused(archive_dataset(write_zip(raw_dir / "bad.zip", {"../../x": "y"})))
        assert [path.name for path in raw_dir.parent.iterdir() if path.name not in {"raw", "run"}] == []

    def test_thinning_needs_numbered_eras(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        unnumbered = csv_table([[row[0], "eraX", *row[2:]] for row in training_rows()])
        assert "'eraX' has no number" in refused(classic_dataset(raw_dir, unnumbered), every_nth_era=4)
        assert "every_nth_era=0" in refused(classic_dataset(raw_dir), every_nth_era=0)


class TestV5:
    def test_tables(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        outcome = unpacked(v5_dataset(raw_dir))

        training, tournament = read(layout.training), read(layout.tournament)
        expected = ["id", "era", "data_type", "feature_b", "feature_a", "feature_c", "target"]
        assert training.schema.names == expected, "the source's order, not that of the feature set"
        assert tournament.schema.equals(training.schema)
        assert training.schema.types == [pa.string()] * 3 + [pa.int8()] * 3 + [pa.float32()]
        source = v5_tables()
        for name in expected:
            assert training[name].to_pylist() == source["train"][name].to_pylist()
        assert tournament["id"].to_pylist() == source["validation"]["id"].to_pylist() + source["live"]["id"].to_pylist()
        assert tournament["data_type"].to_pylist() == ["validation"] * 12 + ["live"] * 4
        np.testing.assert_array_equal(np.isnan(tournament["target"].to_numpy()), [False] * 12 + [True] * 4)
        assert (outcome.training.eras, outcome.tournament.eras, outcome.features) == (8, 4, 3)
        assert outcome.feature_set == "small"

    def test_another_feature_set_and_target(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        outcome = unpacked(v5_dataset(raw_dir), feature_set="all", target="target_ender_20")
        assert (outcome.features, outcome.target) == (4, "target_ender_20")
        training = read(layout.training)
        assert training.schema.names == ["id", "era", "data_type", *V5_FEATURES, "target"]
        assert training["target"].to_pylist()[:3] == [0.25, 0.5, 0.75]
        assert json.loads(training.schema.metadata[b"numerai"]) == {
            "target": "target_ender_20",
            "feature_set": "all",
            "source": "practice",
        }

    def test_the_default_target(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], caplog: pytest.LogCaptureFixture
    ) -> None:
        features = features_json()
        features["targets"] = ["target_ender_20"]
        without = {kind: {"target": None} for kind in ("train", "validation", "live")}
        with caplog.at_level(logging.INFO):
            assert unpacked(v5_dataset(raw_dir, features=features)).target == "target", "in the file, if not listed"
            raw = v5_dataset(raw_dir, v5_tables(**without), features)
            assert unpacked(raw, inputs="other").target == "target_ender_20", "else the first one listed"
        assert "using the default target 'target_ender_20' of" in caplog.text

    def test_live_without_targets(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        unpacked(v5_dataset(raw_dir, v5_tables(live={"target": None, "target_ender_20": None})))
        assert np.isnan(read(layout.tournament)["target"].to_numpy()[12:]).all()

    @pytest.mark.parametrize("index", ["id", None], ids=["named id", "without a name"])
    def test_the_id_as_a_pandas_index(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], index: str | None
    ) -> None:
        column = index or "__index_level_0__"
        stored = {}
        for kind, table in v5_tables().items():
            ids = table["id"]
            renamed = table.drop_columns(["id"]).append_column(column, ids)
            pandas = {"index_columns": [column], "columns": [], "column_indexes": []}
            stored[kind] = renamed.replace_schema_metadata({b"pandas": json.dumps(pandas)})
        unpacked(v5_dataset(raw_dir, stored))
        assert read(layout.training)["id"].to_pylist() == v5_tables()["train"]["id"].to_pylist()

    @pytest.mark.parametrize("statistics", [True, False])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_a_feature_with_nulls_is_float_in_both_tables(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        place: str,
        statistics: bool,
    ) -> None:
        rows = v5_tables()[place].num_rows
        feature = pa.array([None, *[1] * (rows - 1)], pa.int8())
        outcome = unpacked(
            v5_dataset(raw_dir, v5_tables(**{place: {"feature_a": feature}}), write_statistics=statistics)
        )
        for path in (layout.training, layout.tournament):
            schema = pq.read_schema(path)
            assert schema.field("feature_a").type == pa.float32()
            assert schema.field("feature_b").type == pa.int8()
        assert outcome.training.missing + outcome.tournament.missing == 1

    def test_other_types(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        train = v5_tables()["train"]
        replaced = {
            "id": train["id"].cast(pa.large_string()),
            "era": train["era"].dictionary_encode(),
            "data_type": train["data_type"].dictionary_encode(),
            "feature_a": train["feature_a"].cast(pa.float64()),
            "target": train["target"].cast(pa.float64()),
        }
        unpacked(v5_dataset(raw_dir, v5_tables(train=replaced)))
        training = read(layout.training)
        assert training["era"].to_pylist() == train["era"].to_pylist()
        assert training["feature_a"].type == pq.read_schema(layout.tournament).field("feature_a").type == pa.float32()

    @pytest.mark.parametrize("kind", [pa.null(), pa.int8(), pa.float64()])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_unpack_feature_without_values_is_missing_and_reported(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        caplog: pytest.LogCaptureFixture,
        place: str,
        kind: pa.DataType,
    ) -> None:
        rows = v5_tables()[place].num_rows
        outcome = unpacked(v5_dataset(raw_dir, v5_tables(**{place: {"feature_a": pa.nulls(rows, kind)}})))
        table, side = (layout.training, "training") if place == "train" else (layout.tournament, "tournament")
        missing = {"training": outcome.training.missing, "tournament": outcome.tournament.missing}
        assert missing == {"training": 0, "tournament": 0} | {side: rows}
        assert f"{place}.parquet: 1 feature has no value in any of the {rows} rows: feature_a" in caplog.text
        assert f"{rows} feature values are missing and become NaN" in caplog.text
        for path in (layout.training, layout.tournament):
            assert pq.read_schema(path).field("feature_a").type == pa.float32()
        values = read(table)["feature_a"].to_numpy()
        assert np.isnan(values).sum() == rows

    def test_unpack_feature_with_one_value_is_not_reported_as_empty(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], caplog: pytest.LogCaptureFixture
    ) -> None:
        nearly = pa.array([None, None, None, 1], pa.int8())
        assert unpacked(v5_dataset(raw_dir, v5_tables(live={"feature_a": nearly}))).tournament.missing == 3
        assert "no value in any" not in caplog.text

    @pytest.mark.parametrize("kind", [pa.null(), pa.float32()])
    def test_unpack_validation_target_without_values_is_unknown(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], kind: pa.DataType
    ) -> None:
        replaced = {"validation": {"target": pa.nulls(12, kind)}, "live": {"target": pa.nulls(4, kind)}}
        assert unpacked(v5_dataset(raw_dir, v5_tables(**replaced))).tournament.rows == 16
        assert np.isnan(read(layout.tournament)["target"].to_numpy()).all()

    def test_unpack_unrequested_columns_of_any_type_are_ignored(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        others = {"target_ender_20": pa.array(["x"] * 32), "feature_unused": pa.array([[1]] * 32)}
        raw = v5_dataset(raw_dir, v5_tables(train=others))
        assert unpacked(replace(raw, payout_days=20)).target == "target"

    def test_unpack_payout_target_is_found_beside_a_target_of_text(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        tables = v5_tables()
        for kind, table in tables.items():
            words = pa.array(["x"] * table.num_rows)
            tables[kind] = table.append_column("target_alpha_20", table["target"]).append_column("target_words", words)
        features = features_json()
        features["targets"] += ["target_words", "target_alpha_20"]
        raw = v5_dataset(raw_dir, tables, features)
        assert unpacked(replace(raw, payout_days=20)).target == "target_alpha_20"

    @pytest.mark.parametrize(
        "convert",
        [
            lambda numbers: numbers.cast(pa.float16()),
            lambda numbers: numbers.cast(pa.float64()),
            lambda numbers: numbers.cast(pa.decimal128(9, 4)),
            lambda numbers: numbers.cast(pa.int64()),
            lambda numbers: numbers.dictionary_encode(),
        ],
        ids=["float16", "double", "decimal", "int64", "dictionary"],
    )
    def test_unpack_numbers_of_any_type_keep_their_values(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        convert: Callable[[Any], Any],
    ) -> None:
        train = v5_tables()["train"]
        binary = pa.array([row % 2 for row in range(32)], pa.int8())
        replaced = {"feature_a": convert(train["feature_a"].combine_chunks()), "target": convert(binary)}
        unpacked(v5_dataset(raw_dir, v5_tables(train=replaced)))
        assert read(layout.training)["feature_a"].to_pylist() == train["feature_a"].to_pylist()
        assert read(layout.training)["target"].to_pylist() == binary.to_pylist()

    @pytest.mark.parametrize(
        "convert",
        [
            lambda texts: texts.cast(pa.large_string()),
            lambda texts: texts.cast(pa.string_view()),
            lambda texts: texts.dictionary_encode(),
            lambda texts: texts.cast(pa.large_string()).dictionary_encode(),
        ],
        ids=["large", "view", "dictionary", "large dictionary"],
    )
    def test_unpack_text_of_any_type_keeps_its_values(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        convert: Callable[[Any], Any],
    ) -> None:
        live = v5_tables()["live"]
        texts = {name: convert(live[name].combine_chunks()) for name in ("id", "era", "data_type")}
        unpacked(v5_dataset(raw_dir, v5_tables(live=texts)))
        tournament = read(layout.tournament).slice(12)
        for name in texts:
            assert tournament[name].to_pylist() == live[name].to_pylist()

    def test_unpack_unrequested_feature_sets_may_be_malformed(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], caplog: pytest.LogCaptureFixture
    ) -> None:
        features = features_json()
        features["feature_sets"] |= {"v2_equivalent_features": [], "rain": None, "sunshine": [1, "feature_a"]}
        with caplog.at_level(logging.INFO):
            assert unpacked(v5_dataset(raw_dir, features=features)).features == 3
        assert "feature sets without a list of names, ignored: v2_equivalent_features, rain, sunshine" in caplog.text

    @pytest.mark.parametrize("targets", [None, [], "target", [None, 7, "", "era"]])
    def test_unpack_without_listed_targets_uses_those_of_the_file(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], targets: Any
    ) -> None:
        raw = v5_dataset(raw_dir, features=features_json() | {"targets": targets})
        assert unpacked(raw).target == "target"
        assert unpacked(raw, target="target_ender_20", inputs="other").target == "target_ender_20"

    def test_unpack_unlisted_target_of_the_file_can_be_requested(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        raw = v5_dataset(raw_dir, features=features_json() | {"targets": [None, "target"]})
        assert unpacked(raw, target="target_ender_20").target == "target_ender_20"

    def test_unpack_default_target_is_one_that_the_file_has(
        self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        features = features_json() | {"targets": ["target_gone_20", "target_ender_20"]}
        without = {kind: {"target": None} for kind in ("train", "validation", "live")}
        assert unpacked(v5_dataset(raw_dir, v5_tables(**without), features)).target == "target_ender_20"

    def test_thinning(self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        outcome = unpacked(v5_dataset(raw_dir), every_nth_era=3)
        assert list(dict.fromkeys(read(layout.training)["era"].to_pylist())) == ["0002", "0005", "0008"]
        assert (outcome.training.rows, outcome.tournament.rows) == (12, 16)

    def test_rows_of_validation_may_be_test(self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        replaced = {
            "data_type": pa.array(["validation"] * 8 + ["test"] * 4),
            "target": pa.array([0.5] * 8 + [None] * 4, pa.float32()),
        }
        outcome = unpacked(v5_dataset(raw_dir, v5_tables(validation=replaced)))
        assert outcome.tournament.data_types == {"validation": 8, "test": 4, "live": 4}

    def test_only_the_chosen_columns_are_read(self, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]) -> None:
        broken = pa.array([float("inf")] * 32)
        assert unpacked(v5_dataset(raw_dir, v5_tables(train={"feature_unused": broken}))).features == 3


class TestBrokenV5:
    @pytest.mark.parametrize(
        ("place", "column", "value", "parts"),
        [
            ("train", "feature_a", pa.array(["a"] * 32), "train.parquet: column 'feature_a' has the type string"),
            ("live", "feature_a", pa.array([[1]] * 4), "live.parquet: column 'feature_a' has the type list"),
            ("validation", "target", pa.array(["1"] * 12), "column 'target' has the type string"),
            ("train", "era", pa.array([0.5] * 32), "column 'era' has the type double"),
            ("train", "id", None, "train.parquet: column 'id' is missing (found: era, data_type"),
            ("live", "data_type", None, "live.parquet: column 'data_type' is missing"),
            ("validation", "feature_c", None, "validation.parquet: column 'feature_c' is missing"),
            ("validation", "target", None, "validation.parquet: column 'target' is missing"),
            ("train", "target", pa.nulls(32), "none of 32 rows has a known target"),
            ("live", "id", pa.nulls(4), "live.parquet: column 'id' has the type null: it is empty in every row"),
            ("train", "era", pa.nulls(32), "train.parquet: column 'era' has the type null: it is empty in every row"),
            ("validation", "data_type", pa.nulls(12), "column 'data_type' has the type null: it is empty"),
            ("train", "feature_a", pa.array([True, False] * 16), "column 'feature_a' has the type bool"),
            ("train", "target", pa.array([1.0000001] * 32, pa.float32()), "row 1, column 'target': 1.0000001 is outs"),
            ("train", "target", pa.array([-1e-45] * 32, pa.float32()), "row 1, column 'target': -1e-45 is outside"),
            ("train", "feature_a", pa.array([1.0] * 20 + [np.inf] + [1.0] * 11), "row 21, column 'feature_a': inf"),
            ("train", "feature_a", pa.array([1e300] * 32), "row 1, column 'feature_a': inf is infinite or too large"),
            (
                "validation",
                "target",
                pa.array([0.5] * 11 + [1.25]),
                "validation.parquet: row 12, column 'target': 1.25",
            ),
            ("train", "target", pa.array([0.0] * 32), "0 are above 0.5 and 32 below"),
            ("train", "target", pa.nulls(32, pa.float32()), "none of 32 rows has a known target"),
            ("live", "id", pa.array(["live0", None, "c", "d"]), "live.parquet: row 2, column 'id'"),
            ("live", "id", pa.array(["a", "train00007", "c", "d"]), "'train00007' is also in row 8 of train.parquet"),
            ("live", "id", pa.array(["a", "b", "b", "d"]), "row 3, column 'id': 'b' is also in row 2 of live.parquet"),
            ("train", "era", pa.array(["0001"] * 31 + ["eraX"]), "row 32, column 'era': 'eraX' has no number"),
            ("train", "data_type", pa.array(["validation"] * 32), "train.parquet: row 1, column 'data_type'"),
            ("live", "data_type", pa.array(["live", "live", "life", "live"]), "row 3, column 'data_type': 'life'"),
        ],
    )
    def test_columns(
        self, raw_dir: Path, refused: Callable[..., str], place: str, column: str, value: Any, parts: str
    ) -> None:
        assert parts in refused(v5_dataset(raw_dir, v5_tables(**{place: {column: value}})))

    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_no_rows(self, raw_dir: Path, refused: Callable[..., str], place: str) -> None:
        assert f"{place}.parquet: the table has no rows" in refused(
            v5_dataset(raw_dir, {**v5_tables(), place: v5_table(place, [])})
        )

    def test_a_column_twice(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        table = v5_tables()["train"]
        twice = table.append_column("feature_a", table["feature_a"])
        assert "'feature_a' occurs more than once" in refused(v5_dataset(raw_dir, {**v5_tables(), "train": twice}))

    @pytest.mark.parametrize("share", [0, 0.5, 0.99])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_truncated(self, raw_dir: Path, refused: Callable[..., str], place: str, share: float) -> None:
        raw = v5_dataset(raw_dir)
        path = raw.path(place)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert f"{place}.parquet: the parquet file is damaged" in refused(raw)

    def test_damaged_pages(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw = v5_dataset(raw_dir, write_page_checksum=True)
        path = raw.path("validation")
        content = bytearray(path.read_bytes())
        chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
        position = chunk.data_page_offset + chunk.total_compressed_size // 2
        content[position] ^= 0xFF
        path.write_bytes(content)
        assert "validation.parquet" in refused(raw)

    def test_damaged_footers_never_end_the_process(self, raw_dir: Path, layout: RunLayout) -> None:
        """Some Arrow functions abort the process for a damaged footer: they must not be used."""
        raw = v5_dataset(raw_dir)
        outcome = subprocess.run(
            [sys.executable, "-c", DAMAGED_FOOTERS, json.dumps(raw.to_json()), str(layout.directory)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert outcome.returncode == 0, outcome.stderr
        assert int(outcome.stdout) > 100, "many of them were refused"
        assert files_in(layout) in ([], OUTPUTS)

    def test_unpack_invalid_utf8_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw = v5_dataset(raw_dir, use_dictionary=False, compression="none", write_statistics=False)
        path = raw.path("live")
        path.write_bytes(path.read_bytes().replace(b"live00002", b"live\xff\xfe002"[:9]))
        assert "live.parquet: the parquet file is damaged" in refused(raw)

    @pytest.mark.parametrize("role", ["features", "train", "validation", "live"])
    def test_a_missing_file(self, raw_dir: Path, refused: Callable[..., str], role: str) -> None:
        raw = v5_dataset(raw_dir)
        raw.path(role).unlink()
        message = refused(raw, NotFoundError)
        assert raw.path(role).name in message
        assert "download" in message

    def test_an_unknown_feature_set(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        message = refused(v5_dataset(raw_dir), NotFoundError, feature_set="medium")
        assert "feature set 'medium' does not exist: choose one of small (3), all (4)" in message

    def test_an_unknown_target(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        message = refused(v5_dataset(raw_dir), NotFoundError, target="target_nomi")
        assert "target 'target_nomi' does not exist: choose one of target, target_ender_20" in message

    def test_unpack_listed_target_missing_in_file_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        features = features_json()
        features["targets"].append("target_bravo")
        message = refused(v5_dataset(raw_dir, features=features), target="target_bravo")
        assert "train.parquet: column 'target_bravo' is missing" in message

    @pytest.mark.parametrize(
        ("features", "parts"),
        [
            ([], "feature_sets"),
            ({"targets": ["target"]}, "feature_sets"),
            ({"feature_sets": {"small": []}, "targets": ["target"]}, "set 'small' is empty: choose one of none"),
            (
                {"feature_sets": {"small": [], "all": ["feature_a"], "old": []}, "targets": ["target"]},
                "features.json: the feature set 'small' is empty: choose one of all (1)",
            ),
            ({"feature_sets": {"small": [1]}, "targets": ["target"]}, "set 'small' is not a list of names: choose one"),
            ({"feature_sets": {"small": None}, "targets": ["target"]}, "'small' is not a list of names: choose one"),
            ({"feature_sets": {"small": ["era"]}, "targets": ["target"]}, "does not start with 'feature'"),
            ({"feature_sets": {"small": ["feature_z"]}, "targets": ["target"]}, "column 'feature_z' is missing"),
        ],
    )
    def test_features_json(self, raw_dir: Path, refused: Callable[..., str], features: Any, parts: str) -> None:
        assert parts in refused(v5_dataset(raw_dir, features=features))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_unpack_features_json_not_json_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], content: bytes
    ) -> None:
        raw = v5_dataset(raw_dir)
        raw.path("features").write_bytes(content)
        assert "features.json: not JSON" in refused(raw)


class TestUpToDate:
    def test_unpack_up_to_date_is_logged_and_skipped(
        self,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        raw = classic_dataset(raw_dir)
        first = unpacked(raw)
        raw.path("archive").unlink()
        with caplog.at_level(logging.INFO):
            again = unpacked(raw)
        assert again.up_to_date
        assert not first.up_to_date
        assert UnpackedDataset.from_json({**again.to_json(), "up_to_date": False}) == first
        assert "up to date: training 24 rows in 6 eras" in caplog.text

    @pytest.mark.parametrize("change", ["inputs", "force", "training", "tournament", "manifest", "about"])
    def test_unpack_changed_inputs_are_unpacked_again(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], change: str
    ) -> None:
        raw = classic_dataset(raw_dir)
        unpacked(raw)
        choices: dict[str, Any] = {}
        manifest = layout.training.with_name("training.parquet.manifest.json")
        match change:
            case "inputs":
                choices["inputs"] = "other"
            case "force":
                choices["force"] = True
            case "training":
                layout.training.write_bytes(layout.training.read_bytes()[:-1] + b"?")
            case "tournament":
                layout.tournament.unlink()
            case "manifest":
                manifest.unlink()
            case "about":
                manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "about": {"unpacked": {}}}))
        assert not unpacked(raw, **choices).up_to_date
        assert files_in(layout) == OUTPUTS
        assert unpacked(raw, **{**choices, "force": False}).up_to_date

    def test_the_same_inputs_give_the_same_bytes(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        raw = v5_dataset(raw_dir)
        unpacked(raw)
        first = layout.training.read_bytes(), layout.tournament.read_bytes()
        unpacked(raw, force=True)
        assert (layout.training.read_bytes(), layout.tournament.read_bytes()) == first

    def test_old_tables_survive_a_refusal(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        unpacked(classic_dataset(raw_dir))
        with pytest.raises(BadInputError):
            unpacked(classic_dataset(raw_dir, "broken"), inputs="other")
        assert files_in(layout) == OUTPUTS
        assert verified_manifest(layout.training, inputs="hash")
        assert verified_manifest(layout.tournament, inputs="hash")

    def test_two_runs_with_the_same_settings_wait_for_each_other(
        self,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        raw = classic_dataset(raw_dir)
        inside, go_on = threading.Event(), threading.Event()
        extract = archive.extract

        def slow(*arguments: Any) -> list[Path]:
            inside.set()
            assert go_on.wait(60)
            return extract(*arguments)

        monkeypatch.setattr(dataset_plan, "extract", slow)
        outcomes: dict[str, UnpackedDataset] = {}
        with caplog.at_level(logging.INFO):
            first = threading.Thread(target=lambda: outcomes.update(first=unpacked(raw)))
            first.start()
            assert inside.wait(60)
            second = threading.Thread(target=lambda: outcomes.update(second=unpacked(raw)))
            second.start()
            while "another task is unpacking the same data; waiting" not in caplog.text:
                time.sleep(0.01)
            go_on.set()
            first.join(60)
            second.join(60)
        assert {name: outcome.up_to_date for name, outcome in outcomes.items()} == {"first": False, "second": True}


class TestTrouble:
    def test_too_little_space(
        self, raw_dir: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk, "RESERVED_BYTES", 2**70)
        assert "writing the run's tables needs" in refused(v5_dataset(raw_dir), DiskFullError)
        assert "unpacking numerai_dataset_100.zip needs" in refused(classic_dataset(raw_dir), DiskFullError)

    def test_unpack_with_a_byte_too_little_names_both_sizes(
        self, raw_dir: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = shutil.disk_usage(raw_dir.parent)
        archive_bytes = sum(len(csv_table(rows)) for rows in (training_rows(), tournament_rows()))
        needed = disk.RESERVED_BYTES + archive_bytes + len("id,probability\nl1,0.5\n")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: sizes._replace(free=needed - 1))
        message = refused(classic_dataset(raw_dir), DiskFullError)
        assert f"needs {needed / 1e6:,.6f} MB" in message
        assert f"only {(needed - 1) / 1e6:,.6f} MB are free" in message

    @pytest.mark.parametrize(("number", "error"), [(28, DiskFullError), (122, DiskFullError), (5, PipelineError)])
    @pytest.mark.parametrize("place", ["write", "close", "manifest"])
    def test_a_disk_that_fails_while_writing(
        self,
        raw_dir: Path,
        refused: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        number: int,
        error: type[PipelineError],
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        raw = v5_dataset(raw_dir)
        match place:
            case "write":
                monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
            case "close":
                monkeypatch.setattr(pq.ParquetWriter, "close", fail)
            case "manifest":
                real = manifests.write_manifest

                def second_fails(path: Path, **about: Any) -> Any:
                    return fail() if path.name == "tournament.parquet" else real(path, **about)

                monkeypatch.setattr(dataset, "write_manifest", second_fails)
        message = refused(raw, error)
        assert ("make room" if error is DiskFullError else os.strerror(number)) in message

    def test_unpack_interrupted_removes_its_files(
        self,
        layout: RunLayout,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(tables.TableWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpacked(classic_dataset(raw_dir))
        assert files_in(layout) == []

    @pytest.mark.parametrize(
        "moment",
        [
            "archive.Progress.advance",
            "tables.TableWriter.write",
            "id_checks.DuplicateIdDetector.check",
            "unpack.manifest_path",
            "unpack.write_manifest",
            "unpack.write_manifest:2",
        ],
    )
    def test_killed_in_the_middle(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset], moment: str
    ) -> None:
        raw = classic_dataset(raw_dir)
        neighbour = layout.directory / ".split.parquet.abc.part"
        layout.directory.mkdir()
        neighbour.write_text("another task's")
        self.kill_at(moment, raw, layout)
        assert not (read_manifest(layout.training) and read_manifest(layout.tournament)), "nothing looks finished"
        assert not unpacked(raw).up_to_date
        assert files_in(layout) == [neighbour.name, *OUTPUTS], "leftovers are cleared away, but only our own"

    def test_unpack_killed_before_the_cleanup_is_up_to_date(
        self, layout: RunLayout, raw_dir: Path, unpacked: Callable[..., UnpackedDataset]
    ) -> None:
        raw = classic_dataset(raw_dir)
        self.kill_at("unpack.shutil.rmtree", raw, layout)
        assert [name for name in files_in(layout) if name.startswith(".unpacked.")]
        assert unpacked(raw).up_to_date
        assert files_in(layout) == OUTPUTS

    @staticmethod
    def kill_at(moment: str, raw: RawDataset, layout: RunLayout) -> None:
        died = subprocess.run(
            [sys.executable, "-c", KILLED_AT, moment, json.dumps(raw.to_json()), str(layout.directory)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr

    def test_unpack_logs_progress(
        self,
        raw_dir: Path,
        unpacked: Callable[..., UnpackedDataset],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        monkeypatch.setattr(tables, "_BATCH_BYTES", 0)
        rows = 400
        with caplog.at_level(logging.INFO):
            unpacked(v5_dataset(raw_dir, {**v5_tables(), "train": v5_table("train", list(range(1, rows // 4 + 1)))}))
        assert "train.parquet: 256 rows of about 400 rows (64%), " in caplog.text
        assert "train.parquet: 400 rows read" in caplog.text

    def test_progress_does_not_log_between_intervals(self, caplog: pytest.LogCaptureFixture) -> None:
        quiet = progress.Progress(logging.getLogger("test"), "work", 100, "rows")
        with caplog.at_level(logging.INFO):
            for _ in range(50):
                quiet.advance(1)
        assert caplog.text == ""


DAMAGED_FOOTERS = """
import hashlib, json, sys
from pathlib import Path
from numerai_pipeline.dataset.unpack import unpack
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.storage.layout import RunLayout

raw, directory = RawDataset.from_json(json.loads(sys.argv[1])), sys.argv[2]
path = raw.path("train")
whole = path.read_bytes()
footer = int.from_bytes(whole[-8:-4], "little")
refused = 0
for position in range(len(whole) - 8 - footer, len(whole), 11):
    for flip in (0x01, 0xFF):
        damaged = bytearray(whole)
        damaged[position] ^= flip
        path.write_bytes(damaged)
        raw.files["train"] = RawFile(str(path), hashlib.sha256(damaged).hexdigest())
        try:
            unpack(raw, RunLayout(Path(directory)), feature_set="small", target=None, every_nth_era=1, inputs="hash",
                   force=True)
        except PipelineError:
            refused += 1
print(refused)
"""

KILLED_AT = """
import importlib, json, os, signal, sys
from pathlib import Path
from numerai_pipeline.dataset.unpack import unpack
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.storage.layout import RunLayout

moment, raw, directory = sys.argv[1:]
place, _, call = moment.partition(":")
module, *owners, name = place.split(".")
owner = importlib.import_module(f"numerai_pipeline.dataset.{module}")
for part in owners:
    owner = getattr(owner, part)
real, left = getattr(owner, name), int(call or 1)

def kill(*arguments, **options):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

setattr(owner, name, kill)
raw = RawDataset.from_json(json.loads(raw))
unpack(raw, RunLayout(Path(directory)), feature_set="small", target=None, every_nth_era=1, inputs="hash")
"""


class TestIds:
    class Ids:
        def __init__(self, name: str, *batches: list[str]) -> None:
            self.name = name
            self.batches = [pa.array(batch) for batch in batches]

        def read_text(self, column: str) -> Any:
            assert column == "id"
            yield from self.batches

    def check(self, *sources: Ids) -> None:
        register = id_checks.DuplicateIdDetector()
        for source in sources:
            for batch in source.batches:
                register.add(batch)
        register.check(sources)

    def test_different_ids(self) -> None:
        self.check(self.Ids("a", ["1", "2"], ["3"]), self.Ids("b", ["4"]))
        self.check()

    def test_equal_hashes_are_not_equal_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(id_checks, "hash", lambda _: 7, raising=False)
        self.check(self.Ids("a", ["1", "2"]), self.Ids("b", ["3"]))
        with pytest.raises(BadInputError, match="b: row 1, column 'id': '2' is also in row 2 of a"):
            self.check(self.Ids("a", ["1", "2"]), self.Ids("b", ["2"]))

    def test_very_many_duplicates(self) -> None:
        ids = [str(number) for number in range(5_000)]
        with pytest.raises(BadInputError, match="is also in"):
            self.check(self.Ids("a", ids, ids))

    def test_memory(self) -> None:
        register = id_checks.DuplicateIdDetector()
        for start in range(0, 1_000_000, 50_000):
            register.add(pa.array([f"n{number:015x}" for number in range(start, start + 50_000)]))
        assert sum(part.nbytes for part in register._hashes) == 8_000_000
        register.check([])


@pytest.mark.parametrize(
    ("era", "number"),
    [("era1", 1), ("0575", 575), ("12", 12), ("eraX", None), ("", None), ("era-1", None), ("1.5", None)],
)
def test_era_number(era: str, number: int | None) -> None:
    assert era_number(era) == number


def test_a_real_archive(layout: RunLayout, unpacked: Callable[..., UnpackedDataset], real_archive: Path) -> None:
    outcome = unpacked(archive_dataset(real_archive))

    assert (outcome.training.rows, outcome.tournament.rows, outcome.features) == (3336, 2354, 50)
    assert (outcome.training.eras, outcome.tournament.eras) == (120, 13)
    assert outcome.tournament.data_types == {"validation": 382, "test": 1919, "live": 53}
    tournament = read(layout.tournament)
    assert tournament.schema.names == ["id", "era", "data_type", *(f"feature{n}" for n in range(1, 51)), "target"]
    assert int(np.isnan(tournament["target"].to_numpy()).sum()) == 1919 + 53
    assert read(layout.training)["target"].to_numpy().mean() == 0.5
