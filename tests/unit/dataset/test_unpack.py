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
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError, DiskFullError, NotFoundError, PipelineError
from numerai_pipeline.dataset import id_checks, plan, tables
from numerai_pipeline.dataset import unpack as dataset
from numerai_pipeline.dataset.store import Dataset, find_datasets
from numerai_pipeline.dataset.tables import era_number
from numerai_pipeline.dataset.unpack import write_live
from numerai_pipeline.storage import disk, manifests, progress
from numerai_pipeline.storage.manifests import verified_manifest
from tests.samples import payout
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
from tests.unit.dataset.unpacking import DATASET_FILES, LIVE_FILES, Unpacked, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_pipeline.dataset.raw import RawDataset

ROOT = Path(__file__).resolve().parents[3]
HEADER = ("id", "era", "data_type", *FEATURES, "target")
OUTPUTS = sorted(DATASET_FILES + LIVE_FILES)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "data")


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def unpacked(volume: Volume) -> Callable[..., Unpacked]:
    """Unpack with default parameters."""

    def attempt(raw: RawDataset, **choices: Any) -> Unpacked:
        return volume.unpack(as_downloaded(raw), **choices)

    return attempt


@pytest.fixture
def refused(volume: Volume, unpacked: Callable[..., Unpacked]) -> Callable[..., str]:
    """Unpack an invalid dataset; check that no part of a dataset or of the run remains, and return the message."""

    def attempt(raw: RawDataset, error: type[PipelineError] = BadInputError, **choices: Any) -> str:
        with pytest.raises(error) as caught:
            unpacked(raw, **choices)
        # where the live rows are invalid, the dataset is complete
        assert volume.files() in ([], DATASET_FILES)
        return str(caught.value)

    return attempt


def read(path: Path) -> pa.Table:
    return pq.read_table(path)


def missing_in(outcome: Unpacked) -> dict[str, int]:
    """Count the missing features of each raw file."""
    dataset = outcome.dataset
    return {"train": dataset.training.missing, "validation": dataset.validation.missing, "live": outcome.live.missing}


def rows_with(column: str, row: int, value: str, rows: list[list[str]]) -> str:
    """Set a value in one row (from 1) of a table."""
    rows[row - 1][HEADER.index(column)] = value
    return csv_table(rows)


class TestClassic:
    def test_unpack_classic_zip_writes_three_tables(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir))

        training, validation, live = read(volume.training), read(volume.validation), read(volume.live)
        assert training.schema.names == list(HEADER)
        assert training.schema.equals(validation.schema)
        assert training.schema.equals(live.schema)
        assert training.schema.types == [pa.string()] * 3 + [pa.float32()] * 4
        assert training["id"].to_pylist() == [row[0] for row in training_rows()]
        assert training["feature2"].to_pylist() == [0.22499999403953552] * 24
        assert validation["data_type"].to_pylist() == ["validation", "validation"]
        assert validation["era"].to_pylist() == ["era121", "era122"]
        assert validation["target"].to_pylist() == [0, 1]
        assert live["data_type"].to_pylist() == ["test", "live"]
        assert live["era"].to_pylist() == ["eraX", "eraX"]
        assert np.isnan(live["target"].to_numpy()).all()
        assert live["target"].null_count == 0, "unknown is NaN, not null"
        assert json.loads(training.schema.metadata[b"numerai"]) == {
            "target": "target",
            "feature_set": "all",
            "source": "archive",
        }
        assert (outcome.dataset.training.rows, outcome.dataset.training.eras, len(outcome.dataset.features)) == (
            24,
            6,
            3,
        )
        assert outcome.dataset.training.data_types == {"train": 24}
        assert outcome.dataset.validation.data_types == {"validation": 2}
        assert outcome.live.data_types == {"test": 1, "live": 1}
        assert Dataset.read(outcome.dataset.layout) == outcome.dataset
        assert volume.files() == OUTPUTS

    def test_unpack_classic_zip_has_an_embargo_on_request(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        """Its eras are months, and no target reaches over the next one."""
        assert unpacked(classic_dataset(raw_dir)).dataset.embargo == 0
        assert volume.unpack(classic_dataset(raw_dir), embargo=2).dataset.embargo == 2

    def test_unpack_classic_zip_writes_manifests(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        unpacked(classic_dataset(raw_dir))
        for path, rows in ((volume.training, 24), (volume.validation, 2), (volume.live, 2)):
            manifest = verified_manifest(path)
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
    def test_unpack_classic_files_are_found_by_name(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], names: tuple[str, str]
    ) -> None:
        assert unpacked(classic_dataset(raw_dir, names=names)).dataset.training.rows == 24

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
    def test_unpack_classic_format_variants_are_accepted(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        change: Callable[[str], str],
    ) -> None:
        training, tournament = change(csv_table(training_rows())), change(csv_table(tournament_rows()))
        outcome = unpacked(classic_dataset(raw_dir, training, tournament))
        assert (outcome.dataset.training.rows, outcome.dataset.validation.rows, outcome.live.rows) == (24, 2, 2)
        assert read(volume.training)["id"][0].as_py() == "n001000"
        assert np.isnan(read(volume.live)["target"].to_numpy()).all()

    def test_unpack_classic_column_order_and_extra_columns_are_ignored(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        order = [6, 5, 0, 1, 3, 2, 4]
        shuffled = [HEADER[place] for place in order]
        tournament = csv_table(
            [[*(row[place] for place in order), "x"] for row in tournament_rows()], [*shuffled, "note"]
        )
        unpacked(classic_dataset(raw_dir, None, tournament))
        for path in (volume.validation, volume.live):
            assert read(path).schema.names == list(HEADER)
            assert read(path)["feature3"][0].as_py() == pytest.approx(0.325)

    def several_targets(self, raw_dir: Path) -> RawDataset:
        header = (*HEADER[:-1], "target_bernie", "target_charles")
        training = [[*row, str(1 - int(row[-1]))] for row in training_rows()]
        tournament = [[*row, row[-1]] for row in tournament_rows()]
        return classic_dataset(raw_dir, csv_table(training, header), csv_table(tournament, header))

    def test_unpack_classic_default_target_is_the_first(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with caplog.at_level(logging.INFO):
            assert unpacked(self.several_targets(raw_dir)).dataset.target == "target_bernie"
        assert "using the default target 'target_bernie' of: target_bernie, target_charles" in caplog.text
        assert read(volume.training).schema.names == list(HEADER)
        assert read(volume.training)["target"].to_pylist()[:2] == [0, 1]

    def test_unpack_classic_requested_target_is_used(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        assert unpacked(self.several_targets(raw_dir), target="target_charles").dataset.target == "target_charles"
        assert read(volume.training)["target"].to_pylist()[:2] == [1, 0]
        assert json.loads(read(volume.training).schema.metadata[b"numerai"])["target"] == "target_charles"

    def test_unpack_classic_unknown_target_lists_the_available_ones(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        message = refused(self.several_targets(raw_dir), NotFoundError, target="target_ken")
        assert "'target_ken'" in message
        assert "target_bernie, target_charles" in message

    def test_unpack_classic_kazutsugi_and_named_features_are_accepted(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        header = ("id", "era", "data_type", "feature_wisdom1", "feature_charm1", "feature_wisdom2", "target_kazutsugi")
        raw = classic_dataset(raw_dir, csv_table(training_rows(), header), csv_table(tournament_rows(), header))
        assert unpacked(raw).dataset.target == "target_kazutsugi"
        assert read(volume.training).schema.names == [*header[:-1], "target"]

    @pytest.mark.parametrize(("nth", "kept"), [(2, [2, 4, 6]), (4, [2, 6]), (6, [6]), (52, [6])])
    def test_unpack_classic_every_nth_era_keeps_the_newest(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        nth: int,
        kept: list[int],
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir), every_nth_era=nth)
        assert sorted(set(read(volume.training)["era"].to_pylist())) == [f"era{era}" for era in kept]
        assert outcome.dataset.training.rows == 4 * len(kept)
        assert (outcome.dataset.validation.rows, outcome.live.rows) == (2, 2)

    def test_unpack_classic_eras_are_ordered_by_number(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        unpacked(classic_dataset(raw_dir, csv_table(training_rows(eras=11))), every_nth_era=5)
        assert list(dict.fromkeys(read(volume.training)["era"].to_pylist())) == ["era1", "era6", "era11"]

    def test_unpack_classic_missing_features_are_nan_and_counted(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir, rows_with("feature2", 3, "", training_rows())))
        assert outcome.dataset.training.missing == 1
        assert np.isnan(read(volume.training)["feature2"].to_numpy()[2])
        assert "1 feature values are missing" in caplog.text

    def test_unpack_classic_training_rows_without_target_are_dropped(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        outcome = unpacked(classic_dataset(raw_dir, rows_with("target", 3, "", training_rows())))
        assert (outcome.dataset.training.rows, outcome.dataset.training.without_target) == (23, 1)
        assert "n001002" not in read(volume.training)["id"].to_pylist()

    def test_unpack_classic_batch_size_does_not_change_row_groups(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from numerai_pipeline.dataset import csv_source

        raw = classic_dataset(raw_dir)
        monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
        unpacked(raw)
        first = volume.training.read_bytes()
        monkeypatch.setattr(csv_source, "_READ_BYTES", 100)
        unpacked(replace(raw, version="other"))
        metadata = pq.ParquetFile(volume.training).metadata
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [7, 7, 7, 3]
        assert volume.training.read_bytes() == first


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
    def test_unpack_classic_broken_training_file_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], case: str
    ) -> None:
        content, parts = BROKEN_TRAINING[case]
        message = refused(classic_dataset(raw_dir, training=content))
        assert TRAINING in message
        for part in parts:
            assert part in message

    @pytest.mark.parametrize("case", BROKEN_TOURNAMENT)
    def test_unpack_classic_broken_tournament_file_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], case: str
    ) -> None:
        content, parts = BROKEN_TOURNAMENT[case]
        message = refused(classic_dataset(raw_dir, tournament=content))
        assert TOURNAMENT in message
        for part in parts:
            assert part in message

    def test_unpack_classic_error_far_into_a_file_names_its_row(
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
    def test_unpack_classic_zip_with_wrong_files_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], members: dict[str, str], parts: str
    ) -> None:
        raw_dir.mkdir()
        assert parts in refused(archive_dataset(write_zip(raw_dir / "bad.zip", members)))

    def test_unpack_classic_missing_archive_is_named(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        assert "gone.zip" in refused(archive_dataset(raw_dir / "gone.zip"), NotFoundError)

    def test_unpack_classic_zip_with_outside_path_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw_dir.mkdir()
        assert "leads out" in refused(archive_dataset(write_zip(raw_dir / "bad.zip", {"../../x": "y"})))
        assert [path.name for path in raw_dir.parent.iterdir() if path.name not in {"raw", "data"}] == []

    def test_unpack_classic_every_nth_era_requires_numbered_eras(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        unnumbered = csv_table([[row[0], "eraX", *row[2:]] for row in training_rows()])
        assert "'eraX' has no number" in refused(classic_dataset(raw_dir, unnumbered), every_nth_era=4)
        assert "every_nth_era=0" in refused(classic_dataset(raw_dir), every_nth_era=0)


class TestV5:
    def test_unpack_v5_files_write_three_tables(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        outcome = unpacked(v5_dataset(raw_dir))

        training, validation, live = read(volume.training), read(volume.validation), read(volume.live)
        expected = ["id", "era", "data_type", "feature_b", "feature_a", "feature_c", "target"]
        assert training.schema.names == expected, "the source's order, not that of the feature set"
        assert validation.schema.equals(training.schema)
        assert live.schema.equals(training.schema)
        assert training.schema.types == [pa.string()] * 3 + [pa.int8()] * 3 + [pa.float32()]
        source = v5_tables()
        for name in expected:
            assert training[name].to_pylist() == source["train"][name].to_pylist()
        for name, table in (("validation", validation), ("live", live)):
            assert table["id"].to_pylist() == source[name]["id"].to_pylist()
            assert set(table["data_type"].to_pylist()) == {name}
        assert not np.isnan(validation["target"].to_numpy()).any()
        assert np.isnan(live["target"].to_numpy()).all()
        assert (outcome.dataset.training.eras, outcome.dataset.validation.eras, outcome.live.eras) == (8, 3, ["0012"])
        assert len(outcome.dataset.features) == 3
        assert outcome.dataset.feature_set == "small"

    def test_unpack_v5_requested_feature_set_and_target_are_used(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        outcome = unpacked(v5_dataset(raw_dir), feature_set="all", target="target_ender_20")
        assert (len(outcome.dataset.features), outcome.dataset.target) == (4, "target_ender_20")
        training = read(volume.training)
        assert training.schema.names == ["id", "era", "data_type", *V5_FEATURES, "target"]
        assert training["target"].to_pylist()[:3] == [0.25, 0.5, 0.75]
        assert json.loads(training.schema.metadata[b"numerai"]) == {
            "target": "target_ender_20",
            "feature_set": "all",
            "source": "practice",
        }

    def test_unpack_v5_default_target_is_named_target_or_listed(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], caplog: pytest.LogCaptureFixture
    ) -> None:
        features = features_json()
        features["targets"] = ["target_ender_20"]
        without = {kind: {"target": None} for kind in ("train", "validation", "live")}
        with caplog.at_level(logging.INFO):
            assert unpacked(v5_dataset(raw_dir, features=features)).dataset.target == "target", (
                "in the file, if not listed"
            )
            raw = v5_dataset(raw_dir, v5_tables(**without), features)
            assert unpacked(raw).dataset.target == "target_ender_20", "else the first one listed"
        assert "using the default target 'target_ender_20' of" in caplog.text

    def test_unpack_v5_live_without_target_columns_has_nan(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        unpacked(v5_dataset(raw_dir, v5_tables(live={"target": None, "target_ender_20": None})))
        assert np.isnan(read(volume.live)["target"].to_numpy()).all()

    @pytest.mark.parametrize("index", ["id", None], ids=["named id", "without a name"])
    def test_unpack_v5_id_in_the_pandas_index_is_read(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked], index: str | None
    ) -> None:
        column = index or "__index_level_0__"
        stored = {}
        for kind, table in v5_tables().items():
            ids = table["id"]
            renamed = table.drop_columns(["id"]).append_column(column, ids)
            pandas = {"index_columns": [column], "columns": [], "column_indexes": []}
            stored[kind] = renamed.replace_schema_metadata({b"pandas": json.dumps(pandas)})
        unpacked(v5_dataset(raw_dir, stored))
        assert read(volume.training)["id"].to_pylist() == v5_tables()["train"]["id"].to_pylist()

    @pytest.mark.parametrize("statistics", [True, False])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_unpack_v5_feature_with_nulls_is_float_in_its_tables(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        place: str,
        statistics: bool,
    ) -> None:
        rows = v5_tables()[place].num_rows
        feature = pa.array([None, *[1] * (rows - 1)], pa.int8())
        outcome = unpacked(
            v5_dataset(raw_dir, v5_tables(**{place: {"feature_a": feature}}), write_statistics=statistics)
        )
        expected = {"training": place != "live", "validation": place != "live", "live": place == "live"}
        for name, is_float in expected.items():
            schema = pq.read_schema(getattr(volume, name))
            assert schema.field("feature_a").type == (pa.float32() if is_float else pa.int8())
            assert schema.field("feature_b").type == pa.int8()
        assert missing_in(outcome) == {"train": 0, "validation": 0, "live": 0} | {place: 1}

    def test_unpack_v5_other_column_types_are_accepted(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        train = v5_tables()["train"]
        replaced = {
            "id": train["id"].cast(pa.large_string()),
            "era": train["era"].dictionary_encode(),
            "data_type": train["data_type"].dictionary_encode(),
            "feature_a": train["feature_a"].cast(pa.float64()),
            "target": train["target"].cast(pa.float64()),
        }
        unpacked(v5_dataset(raw_dir, v5_tables(train=replaced)))
        training = read(volume.training)
        assert training["era"].to_pylist() == train["era"].to_pylist()
        for path in (volume.training, volume.validation):
            assert pq.read_schema(path).field("feature_a").type == pa.float32()

    @pytest.mark.parametrize("kind", [pa.null(), pa.int8(), pa.float64()])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_unpack_feature_without_values_is_missing_and_reported(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        caplog: pytest.LogCaptureFixture,
        place: str,
        kind: pa.DataType,
    ) -> None:
        rows = v5_tables()[place].num_rows
        outcome = unpacked(v5_dataset(raw_dir, v5_tables(**{place: {"feature_a": pa.nulls(rows, kind)}})))
        assert missing_in(outcome) == {"train": 0, "validation": 0, "live": 0} | {place: rows}
        assert f"{place}.parquet: 1 feature has no value in any of the {rows} rows: feature_a" in caplog.text
        assert f"{rows} feature values are missing and become NaN" in caplog.text
        path = {"train": volume.training, "validation": volume.validation, "live": volume.live}[place]
        assert pq.read_schema(path).field("feature_a").type == pa.float32()
        assert np.isnan(read(path)["feature_a"].to_numpy()).sum() == rows

    def test_unpack_feature_with_one_value_is_not_reported_as_empty(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], caplog: pytest.LogCaptureFixture
    ) -> None:
        nearly = pa.array([None, None, None, 1], pa.int8())
        assert unpacked(v5_dataset(raw_dir, v5_tables(live={"feature_a": nearly}))).live.missing == 3
        assert "no value in any" not in caplog.text

    @pytest.mark.parametrize("kind", [pa.null(), pa.float32()])
    def test_unpack_validation_without_targets_holds_out_training_eras(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        caplog: pytest.LogCaptureFixture,
        kind: pa.DataType,
    ) -> None:
        replaced = {"train": {}, "validation": {"target": pa.nulls(12, kind)}, "live": {"target": pa.nulls(4, kind)}}
        raw = v5_dataset(raw_dir, {**v5_tables(**replaced), "train": v5_table("train", list(range(1, 13)))})
        with caplog.at_level(logging.INFO):
            outcome = unpacked(raw, every_nth_era=3)
        assert sorted(set(read(volume.validation)["era"].to_pylist())) == ["0011", "0012"]
        assert outcome.dataset.validation.data_types == {"validation": 8}
        # thinned eras are counted from the newest that is not held out
        assert sorted(set(read(volume.training)["era"].to_pylist())) == ["0001", "0004", "0007", "0010"]
        assert outcome.dataset.known_until == "0012"
        assert "the validation table is the last fifth of 12 eras: 0011 to 0012" in caplog.text

    def test_unpack_validation_rows_without_a_target_stay(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        target = pa.array([0.25] * 8 + [None] * 4, pa.float32())
        outcome = unpacked(v5_dataset(raw_dir, v5_tables(validation={"target": target})))
        assert np.isnan(read(volume.validation)["target"].to_numpy()).tolist() == [False] * 8 + [True] * 4
        assert (outcome.dataset.validation.without_target, outcome.dataset.known_until) == (4, "0010")

    def test_unpack_unrequested_columns_of_any_type_are_ignored(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        others = {"target_ender_20": pa.array(["x"] * 32), "feature_unused": pa.array([[1]] * 32)}
        raw = v5_dataset(raw_dir, v5_tables(train=others))
        assert unpacked(replace(raw, payout=payout(20))).dataset.target == "target"

    def test_unpack_payout_target_is_found_beside_a_target_of_text(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        tables = v5_tables()
        for kind, table in tables.items():
            words = pa.array(["x"] * table.num_rows)
            tables[kind] = table.append_column("target_alpha_20", table["target"]).append_column("target_words", words)
        features = features_json()
        features["targets"] += ["target_words", "target_alpha_20"]
        raw = v5_dataset(raw_dir, tables, features)
        assert unpacked(replace(raw, payout=payout(20))).dataset.target == "target_alpha_20"

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
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        convert: Callable[[Any], Any],
    ) -> None:
        train = v5_tables()["train"]
        binary = pa.array([row % 2 for row in range(32)], pa.int8())
        replaced = {"feature_a": convert(train["feature_a"].combine_chunks()), "target": convert(binary)}
        unpacked(v5_dataset(raw_dir, v5_tables(train=replaced)))
        assert read(volume.training)["feature_a"].to_pylist() == train["feature_a"].to_pylist()
        assert read(volume.training)["target"].to_pylist() == binary.to_pylist()

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
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        convert: Callable[[Any], Any],
    ) -> None:
        live = v5_tables()["live"]
        texts = {name: convert(live[name].combine_chunks()) for name in ("id", "era", "data_type")}
        unpacked(v5_dataset(raw_dir, v5_tables(live=texts)))
        for name in texts:
            assert read(volume.live)[name].to_pylist() == live[name].to_pylist()

    def test_unpack_unrequested_feature_sets_may_be_malformed(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], caplog: pytest.LogCaptureFixture
    ) -> None:
        features = features_json()
        features["feature_sets"] |= {"v2_equivalent_features": [], "rain": None, "sunshine": [1, "feature_a"]}
        with caplog.at_level(logging.INFO):
            assert unpacked(v5_dataset(raw_dir, features=features)).live.rows == 4
        assert "feature sets without a list of names, ignored: v2_equivalent_features, rain, sunshine" in caplog.text

    @pytest.mark.parametrize("targets", [None, [], "target", [None, 7, "", "era"]])
    def test_unpack_without_listed_targets_uses_those_of_the_file(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], targets: Any
    ) -> None:
        raw = v5_dataset(raw_dir, features=features_json() | {"targets": targets})
        assert unpacked(raw).dataset.target == "target"
        assert unpacked(raw, target="target_ender_20").dataset.target == "target_ender_20"

    def test_unpack_unlisted_target_of_the_file_can_be_requested(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        raw = v5_dataset(raw_dir, features=features_json() | {"targets": [None, "target"]})
        assert unpacked(raw, target="target_ender_20").dataset.target == "target_ender_20"

    def test_unpack_default_target_is_one_that_the_file_has(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        features = features_json() | {"targets": ["target_gone_20", "target_ender_20"]}
        without = {kind: {"target": None} for kind in ("train", "validation", "live")}
        assert unpacked(v5_dataset(raw_dir, v5_tables(**without), features)).dataset.target == "target_ender_20"

    def test_unpack_v5_every_nth_era_keeps_the_newest(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        outcome = unpacked(v5_dataset(raw_dir), every_nth_era=3)
        assert list(dict.fromkeys(read(volume.training)["era"].to_pylist())) == ["0002", "0005", "0008"]
        assert (outcome.dataset.training.rows, outcome.dataset.validation.rows, outcome.live.rows) == (12, 12, 4)

    def test_unpack_test_rows_of_validation_are_dropped_and_logged(
        self, raw_dir: Path, unpacked: Callable[..., Unpacked], caplog: pytest.LogCaptureFixture
    ) -> None:
        replaced = {
            "data_type": pa.array(["validation"] * 8 + ["test"] * 4),
            "target": pa.array([0.5] * 8 + [None] * 4, pa.float32()),
        }
        with caplog.at_level(logging.INFO):
            outcome = unpacked(v5_dataset(raw_dir, v5_tables(validation=replaced)))
        assert outcome.dataset.validation.data_types == {"validation": 8}
        assert outcome.live.data_types == {"live": 4}
        assert "validation.parquet: 4 rows have other types than validation" in caplog.text

    def test_unpack_v5_unused_feature_is_not_read(self, raw_dir: Path, unpacked: Callable[..., Unpacked]) -> None:
        broken = pa.array([float("inf")] * 32)
        assert unpacked(v5_dataset(raw_dir, v5_tables(train={"feature_unused": broken}))).live.rows == 4


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
            ("live", "feature_c", None, "live.parquet: column 'feature_c' is missing, but dataset"),
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
            ("validation", "id", pa.array(["train00007", *"bcdefghijkl"]), "'train00007' is also in row 8 of train"),
            ("live", "id", pa.array(["a", "b", "b", "d"]), "row 3, column 'id': 'b' is also in row 2 of live.parquet"),
            ("train", "era", pa.array(["0001"] * 31 + ["eraX"]), "row 32, column 'era': 'eraX' has no number"),
            ("train", "data_type", pa.array(["validation"] * 32), "train.parquet: row 1, column 'data_type'"),
            ("live", "data_type", pa.array(["live", "live", "life", "live"]), "row 3, column 'data_type': 'life'"),
        ],
    )
    def test_unpack_v5_broken_column_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], place: str, column: str, value: Any, parts: str
    ) -> None:
        assert parts in refused(v5_dataset(raw_dir, v5_tables(**{place: {column: value}})))

    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_unpack_v5_table_without_rows_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], place: str
    ) -> None:
        assert f"{place}.parquet: the table has no rows" in refused(
            v5_dataset(raw_dir, {**v5_tables(), place: v5_table(place, [])})
        )

    def test_unpack_v5_duplicate_column_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        table = v5_tables()["train"]
        twice = table.append_column("feature_a", table["feature_a"])
        assert "'feature_a' occurs more than once" in refused(v5_dataset(raw_dir, {**v5_tables(), "train": twice}))

    @pytest.mark.parametrize("share", [0, 0.5, 0.99])
    @pytest.mark.parametrize("place", ["train", "validation", "live"])
    def test_unpack_v5_truncated_file_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], place: str, share: float
    ) -> None:
        raw = v5_dataset(raw_dir)
        path = raw.path(place)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert f"{place}.parquet: the parquet file is damaged" in refused(raw)

    def test_unpack_v5_damaged_page_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw = v5_dataset(raw_dir, write_page_checksum=True)
        path = raw.path("validation")
        content = bytearray(path.read_bytes())
        chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
        position = chunk.data_page_offset + chunk.total_compressed_size // 2
        content[position] ^= 0xFF
        path.write_bytes(content)
        assert "validation.parquet" in refused(raw)

    def test_unpack_v5_damaged_footer_does_not_abort_the_process(self, raw_dir: Path, volume: Volume) -> None:
        """Some Arrow functions abort the process for a damaged footer: they must not be used."""
        raw = v5_dataset(raw_dir)
        outcome = subprocess.run(
            [sys.executable, "-c", DAMAGED_FOOTERS, json.dumps(raw.to_json()), str(volume.data.root)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert outcome.returncode == 0, outcome.stderr
        assert int(outcome.stdout) > 100, "many of them were refused"
        assert set(volume.files()) <= set(OUTPUTS)

    def test_unpack_invalid_utf8_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        raw = v5_dataset(raw_dir, use_dictionary=False, compression="none", write_statistics=False)
        path = raw.path("live")
        path.write_bytes(path.read_bytes().replace(b"live00002", b"live\xff\xfe002"[:9]))
        assert "live.parquet: the parquet file is damaged" in refused(raw)

    @pytest.mark.parametrize("role", ["features", "train", "validation", "live"])
    def test_unpack_v5_missing_file_is_named_with_the_remedy(
        self, raw_dir: Path, refused: Callable[..., str], role: str
    ) -> None:
        raw = v5_dataset(raw_dir)
        raw.path(role).unlink()
        message = refused(raw, NotFoundError)
        assert raw.path(role).name in message
        assert "download" in message

    def test_unpack_v5_unknown_feature_set_lists_the_available_ones(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        message = refused(v5_dataset(raw_dir), NotFoundError, feature_set="medium")
        assert "feature set 'medium' does not exist: choose one of small (3), all (4)" in message

    def test_unpack_v5_unknown_target_lists_the_available_ones(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        message = refused(v5_dataset(raw_dir), NotFoundError, target="target_nomi")
        assert "target 'target_nomi' does not exist: choose one of target, target_ender_20" in message

    def test_unpack_feature_set_without_columns_is_rejected(self, raw_dir: Path, refused: Callable[..., str]) -> None:
        listed = {"feature_sets": {"medium": ["feature_a", "feature_y", "feature_z"]}, "targets": ["target"]}
        message = refused(v5_dataset(raw_dir, features=listed), feature_set="medium")
        expected = "train.parquet: 2 of the 3 features of the set 'medium' are missing: feature_y, feature_z. Choose"
        assert message.startswith(expected)

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
    def test_unpack_v5_invalid_features_json_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], features: Any, parts: str
    ) -> None:
        assert parts in refused(v5_dataset(raw_dir, features=features))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_unpack_features_json_not_json_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str], content: bytes
    ) -> None:
        raw = v5_dataset(raw_dir)
        raw.path("features").write_bytes(content)
        assert "features.json: not JSON" in refused(raw)


class TestUpToDate:
    def test_unpack_up_to_date_reads_no_raw_file(
        self, volume: Volume, raw_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        raw = v5_dataset(raw_dir)
        first = volume.unpack(raw)
        shutil.rmtree(raw_dir)
        with caplog.at_level(logging.INFO):
            again = volume.unpack(raw)
        assert again == Unpacked(first.dataset, replace(first.live, up_to_date=True))
        assert f"up to date: dataset {first.dataset.key}: training 32 rows in 8 eras" in caplog.text
        assert "up to date: live 4 rows (live 4) of era 0012" in caplog.text

    def test_dataset_key_does_not_depend_on_live_file_or_round(self, volume: Volume, raw_dir: Path) -> None:
        raw = v5_dataset(raw_dir)
        first = volume.unpack(raw)
        other = v5_dataset(raw_dir, {"live": v5_table("live", [13])})
        second = volume.unpack(replace(other, round="101"), run=volume.data.run("101", "run"))
        assert second.dataset == first.dataset
        assert (first.live.eras, second.live.eras) == (["0012"], ["0013"])
        assert second.dataset.round == "100"

    @pytest.mark.parametrize(
        "choices",
        [
            {"feature_set": "all"},
            {"target": "target"},
            {"target": "target_ender_20"},
            {"every_nth_era": 2},
            {"embargo": 16},
            {"version": "v5.4"},
            {"source": "numerai"},
            {"payout": payout(20)},
        ],
        ids=str,
    )
    def test_dataset_key_depends_on_each_parameter(
        self, volume: Volume, raw_dir: Path, choices: dict[str, Any]
    ) -> None:
        raw = v5_dataset(raw_dir)
        first = volume.unpack(raw).dataset
        of_raw = {name: value for name, value in choices.items() if name in ("version", "source", "payout")}
        others = {name: value for name, value in choices.items() if name not in of_raw}
        other = volume.unpack(replace(raw, **of_raw), **others).dataset
        assert other.key != first.key
        assert Dataset.read(first.layout) == first

    @pytest.mark.parametrize("role", ["features", "train", "validation"])
    def test_dataset_key_depends_on_each_raw_file(self, volume: Volume, raw_dir: Path, role: str) -> None:
        raw = v5_dataset(raw_dir)
        first = volume.unpack(raw).dataset
        if role == "features":
            raw.path(role).write_text(json.dumps({**features_json(), "other": 1}))
        else:
            pq.write_table(read(raw.path(role)), raw.path(role), compression="none")
        other = volume.unpack(as_downloaded(raw)).dataset
        assert other.key != first.key
        assert other.made_from != first.made_from

    @pytest.mark.parametrize("change", ["training", "validation", "manifest", "metadata", "key"])
    def test_unpack_damaged_dataset_is_made_again(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked], change: str
    ) -> None:
        raw = classic_dataset(raw_dir)
        layout = unpacked(raw).dataset.layout
        whole = volume.training.read_bytes(), volume.validation.read_bytes()
        match change:
            case "training":
                volume.training.write_bytes(volume.training.read_bytes()[:-1] + b"?")
            case "validation":
                volume.validation.unlink()
            case "manifest":
                volume.training.with_name("training.parquet.manifest.json").unlink()
            case "metadata":
                layout.metadata.write_text("{")
            case "key":
                layout.metadata.write_text(json.dumps({**json.loads(layout.metadata.read_text()), "key": "other"}))
        unpacked(raw)
        assert volume.files() == OUTPUTS
        assert (volume.training.read_bytes(), volume.validation.read_bytes()) == whole
        assert Dataset.read(layout).key == layout.directory.name

    @pytest.mark.parametrize("change", ["file", "table", "manifest", "about"])
    def test_write_live_changed_inputs_or_damage_write_it_again(
        self, volume: Volume, raw_dir: Path, change: str
    ) -> None:
        raw = v5_dataset(raw_dir)
        volume.unpack(raw)
        manifest = volume.live.with_name("live.parquet.manifest.json")
        match change:
            case "file":
                raw = v5_dataset(raw_dir, {"live": v5_table("live", [13])})
            case "table":
                volume.live.write_bytes(volume.live.read_bytes()[:-1] + b"?")
            case "manifest":
                manifest.unlink()
            case "about":
                manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "about": {"live": {}}}))
        assert not volume.unpack(raw).live.up_to_date
        assert set(read(volume.live)["era"].to_pylist()) == {"0013" if change == "file" else "0012"}
        assert volume.unpack(raw).live.up_to_date

    def test_unpack_equal_inputs_give_equal_bytes(self, raw_dir: Path, tmp_path: Path) -> None:
        raw = v5_dataset(raw_dir)
        contents = []
        for place in ("one", "two"):
            volume = Volume(tmp_path / place)
            volume.unpack(raw)
            contents.append([path.read_bytes() for path in (volume.training, volume.validation, volume.live)])
        assert contents[0] == contents[1]

    def test_unpack_refusal_leaves_other_datasets_and_the_live_table(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        unpacked(classic_dataset(raw_dir))
        with pytest.raises(BadInputError):
            unpacked(classic_dataset(raw_dir, "broken"))
        assert volume.files() == OUTPUTS
        assert all(verified_manifest(path) for path in (volume.training, volume.validation, volume.live))

    def test_dataset_two_runs_wait_for_each_other_and_one_makes_it(
        self,
        volume: Volume,
        raw_dir: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        raw = v5_dataset(raw_dir)
        inside, go_on, made = threading.Event(), threading.Event(), []
        plan_dataset = plan.plan_dataset

        def slow(*arguments: Any, **choices: Any) -> Any:
            made.append(choices)
            inside.set()
            assert go_on.wait(60)
            return plan_dataset(*arguments, **choices)

        monkeypatch.setattr(dataset, "plan_dataset", slow)
        outcomes: dict[str, Unpacked] = {}

        def run(name: str) -> None:
            outcomes[name] = Volume(volume.data.root).unpack(raw, run=volume.data.run("100", name))

        with caplog.at_level(logging.INFO):
            threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
            threads[0].start()
            assert inside.wait(60)
            threads[1].start()
            while "another task is making the same dataset; waiting" not in caplog.text:
                time.sleep(0.01)
            go_on.set()
            for thread in threads:
                thread.join(60)
        assert len(made) == 1
        assert outcomes["first"] == outcomes["second"]


class TestWeekday:
    """Runs that only predict: the raw dataset has the live file alone."""

    @staticmethod
    def live_only(raw: RawDataset) -> RawDataset:
        return replace(raw, files={"live": raw.files["live"]}, round="101")

    def test_write_live_needs_the_live_file_only(self, volume: Volume, raw_dir: Path) -> None:
        raw = v5_dataset(raw_dir)
        whole = volume.unpack(raw)
        expected = volume.live.read_bytes()
        for role in ("train", "validation", "features"):
            raw.path(role).unlink()
        for path in (volume.training, volume.validation):
            path.unlink()
        run = volume.data.run("101", "run")
        summary = write_live(self.live_only(raw), Dataset.read(whole.dataset.layout), run)
        assert summary == whole.live
        assert run.live.read_bytes() == expected
        assert sorted(path.name for path in run.directory.iterdir()) == LIVE_FILES

    def test_dataset_of_the_live_file_only_names_the_remedy(self, volume: Volume, raw_dir: Path) -> None:
        raw = self.live_only(v5_dataset(raw_dir))
        with pytest.raises(NotFoundError, match=r"a new dataset needs features, train, validation, which .*`download`"):
            volume.unpack(raw)

    def test_write_live_with_another_file_version_names_missing_features(self, volume: Volume, raw_dir: Path) -> None:
        made = volume.unpack(v5_dataset(raw_dir)).dataset
        table = v5_tables(live={"feature_a": None, "feature_c": None})["live"]
        raw = self.live_only(v5_dataset(raw_dir, {"live": table}))
        expected = rf"live\.parquet: columns feature_a, feature_c are missing, but dataset {made.key} \(v5\.3, .*`fit`"
        with pytest.raises(BadInputError, match=expected):
            write_live(raw, made, volume.data.run("101", "run"))

    def test_write_live_features_are_in_the_order_of_the_dataset(self, volume: Volume, raw_dir: Path) -> None:
        made = volume.unpack(v5_dataset(raw_dir)).dataset
        live = v5_tables()["live"]
        shuffled = live.select(["feature_c", "id", "feature_a", "target", "feature_b", "era", "data_type"])
        run = volume.data.run("101", "run")
        write_live(self.live_only(v5_dataset(raw_dir, {"live": shuffled})), made, run)
        assert read(run.live).schema.names == read(volume.training).schema.names
        assert read(run.live)["feature_c"].to_pylist() == live["feature_c"].to_pylist()

    def test_write_live_hides_targets_that_the_file_has(self, volume: Volume, raw_dir: Path) -> None:
        volume.unpack(v5_dataset(raw_dir, v5_tables(live={"target": pa.array([0.5] * 4, pa.float32())})))
        assert np.isnan(read(volume.live)["target"].to_numpy()).all()

    def test_write_live_archive_without_rows_to_predict_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        raw = classic_dataset(raw_dir, tournament=csv_table(tournament_rows()[:2]))
        assert f"{TOURNAMENT}: there is no row of type test or live to predict" in refused(raw)


class TestHoldOut:
    def test_dataset_archive_without_validation_rows_holds_out_eras(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        raw = classic_dataset(raw_dir, csv_table(training_rows(eras=11)), csv_table(tournament_rows()[2:]))
        outcome = unpacked(raw)
        assert list(dict.fromkeys(read(volume.validation)["era"].to_pylist())) == ["era10", "era11"]
        assert set(read(volume.validation)["data_type"].to_pylist()) == {"validation"}
        assert (outcome.dataset.training.eras, outcome.dataset.validation.rows) == (9, 8)

    def test_dataset_of_one_era_without_validation_rows_is_rejected(
        self, raw_dir: Path, refused: Callable[..., str]
    ) -> None:
        raw = classic_dataset(raw_dir, csv_table(training_rows(eras=1)), csv_table(tournament_rows()[2:]))
        assert f"{TRAINING} has 1 eras with one, but two are needed" in refused(raw)

    def test_dataset_held_out_rows_without_a_target_stay_out_of_training(
        self, volume: Volume, raw_dir: Path, unpacked: Callable[..., Unpacked]
    ) -> None:
        rows = training_rows(eras=6)
        for row in rows[20:]:
            row[-1] = ""  # the sixth era is not known yet
        outcome = unpacked(classic_dataset(raw_dir, csv_table(rows), csv_table(tournament_rows()[2:])))
        assert outcome.dataset.known_until == "0005"
        assert set(read(volume.validation)["era"].to_pylist()) == {"era5"}
        assert set(read(volume.training)["era"].to_pylist()) == {"era1", "era2", "era3", "era4"}


class TestFindDatasets:
    WANTED: ClassVar[dict[str, Any]] = {
        "source": "practice",
        "version": "latest",
        "feature_set": "small",
        "target": None,
        "every_nth_era": 1,
    }

    def test_find_datasets_returns_the_newest_first(self, volume: Volume, raw_dir: Path) -> None:
        raw = v5_dataset(raw_dir)
        rounds = [("99", "v5.2"), ("1001", "v5.4"), ("100", "v5.3")]
        made = {number: volume.unpack(replace(raw, round=number, version=version)) for number, version in rounds}
        found = find_datasets(volume.data, **self.WANTED)
        assert found == [made[number].dataset for number in ("1001", "100", "99")]
        assert find_datasets(volume.data, **{**self.WANTED, "version": "v5.3"}) == [made["100"].dataset]

    @pytest.mark.parametrize(
        "change",
        [
            {"source": "numerai"},
            {"version": "v5.2"},
            {"feature_set": "all"},
            # the default is another request than the same target by name
            {"target": "target"},
            {"every_nth_era": 2},
            {"embargo": 16},
            {"payout_days": 60},
        ],
        ids=str,
    )
    def test_find_datasets_of_other_parameters_returns_none(
        self, volume: Volume, raw_dir: Path, change: dict[str, Any]
    ) -> None:
        volume.unpack(replace(v5_dataset(raw_dir), payout=payout(20)))
        assert len(find_datasets(volume.data, **self.WANTED)) == 1
        assert find_datasets(volume.data, **self.WANTED, payout_days=20)
        assert find_datasets(volume.data, **{**self.WANTED, **change}) == []

    def test_find_datasets_omits_damaged_and_unfinished_ones(
        self, volume: Volume, raw_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert find_datasets(volume.data, **self.WANTED) == []
        made = volume.unpack(v5_dataset(raw_dir)).dataset
        root = volume.data.datasets_root
        shutil.copytree(made.layout.directory, root / f".{made.key}.abc.part")
        (root / "damaged").mkdir()
        (root / "damaged" / "dataset.json").write_text("[]")
        (root / "empty").mkdir()
        assert find_datasets(volume.data, **self.WANTED) == [made]
        assert "damaged/dataset.json: damaged" in caplog.text
        assert "empty: the dataset does not exist" in caplog.text


class TestFaults:
    def test_unpack_too_little_space_raises_in_advance(
        self, raw_dir: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk, "RESERVED_BYTES", 2**70)
        assert "writing the dataset's tables needs" in refused(v5_dataset(raw_dir), DiskFullError)
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
    def test_unpack_disk_error_while_writing_removes_its_files(
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
                    return fail() if path.name == "validation.parquet" else real(path, **about)

                monkeypatch.setattr(dataset, "write_manifest", second_fails)
        message = refused(raw, error)
        assert ("make room" if error is DiskFullError else os.strerror(number)) in message

    def test_unpack_interrupted_removes_its_files(
        self,
        volume: Volume,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(tables.TableWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpacked(classic_dataset(raw_dir))
        assert volume.files() == []

    @pytest.mark.parametrize(
        "moment",
        [
            "archive.Progress.advance",
            "tables.TableWriter.write",
            "id_checks.DuplicateIdDetector.check",
            "unpack.write_manifest",
            "unpack.write_manifest:2",
            "unpack.shutil.rmtree",
            "unpack.target_days",
        ],
    )
    def test_dataset_maker_killed_leaves_no_dataset_and_the_next_cleans_up(
        self, volume: Volume, raw_dir: Path, moment: str
    ) -> None:
        raw = classic_dataset(raw_dir)
        neighbour = volume.data.datasets_root / ".other.abc.part" / "training.parquet"
        neighbour.parent.mkdir(parents=True)
        neighbour.write_text("another task's")
        self.kill_at(moment, raw, volume)
        assert len([name for name in volume.files() if name.startswith("datasets/.")]) > 1
        assert find_datasets(volume.data, **{**TestFindDatasets.WANTED, "source": "archive"}) == []
        volume.unpack(raw)
        left = str(neighbour.relative_to(volume.data.root))
        assert volume.files() == sorted([left, *OUTPUTS]), "leftovers are removed, but only those of this dataset"

    def test_dataset_maker_killed_after_the_rename_leaves_a_dataset(self, volume: Volume, raw_dir: Path) -> None:
        raw = classic_dataset(raw_dir)
        self.kill_at("unpack.shutil.rmtree:2", raw, volume)
        (found,) = find_datasets(volume.data, **{**TestFindDatasets.WANTED, "source": "archive"})
        assert volume.files() == DATASET_FILES
        assert volume.unpack(raw).dataset == found

    @pytest.mark.parametrize("moment", ["plan.extract:2", "unpack.manifest_path", "unpack.write_manifest:3"])
    def test_write_live_killed_leaves_no_finished_table_and_the_next_cleans_up(
        self, volume: Volume, raw_dir: Path, moment: str
    ) -> None:
        raw = classic_dataset(raw_dir)
        self.kill_at(moment, raw, volume)
        assert verified_manifest(volume.live) is None
        assert not volume.unpack(raw).live.up_to_date
        assert volume.files() == OUTPUTS

    def test_write_live_killed_before_the_cleanup_is_up_to_date(self, volume: Volume, raw_dir: Path) -> None:
        raw = classic_dataset(raw_dir)
        self.kill_at("unpack.shutil.rmtree:3", raw, volume)
        assert [name for name in volume.files() if name.startswith(".unpacked.")]
        assert volume.unpack(raw).live.up_to_date
        assert volume.files() == OUTPUTS

    @staticmethod
    def kill_at(moment: str, raw: RawDataset, volume: Volume) -> None:
        died = subprocess.run(
            [sys.executable, "-c", KILLED_AT, moment, json.dumps(raw.to_json()), str(volume.data.root)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr

    def test_unpack_logs_progress(
        self,
        raw_dir: Path,
        unpacked: Callable[..., Unpacked],
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
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from tests.unit.dataset.unpacking import Volume

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
            Volume(Path(directory)).unpack(raw)
        except PipelineError:
            refused += 1
print(refused)
"""

KILLED_AT = """
import importlib, json, os, signal, sys
from pathlib import Path
from numerai_pipeline.dataset.raw import RawDataset
from tests.unit.dataset.unpacking import Volume

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
Volume(Path(directory)).unpack(raw)
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

    def test_duplicate_id_detector_distinct_ids_pass(self) -> None:
        self.check(self.Ids("a", ["1", "2"], ["3"]), self.Ids("b", ["4"]))
        self.check()

    def test_duplicate_id_detector_equal_hashes_compare_the_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(id_checks, "hash", lambda _: 7, raising=False)
        self.check(self.Ids("a", ["1", "2"]), self.Ids("b", ["3"]))
        with pytest.raises(BadInputError, match="b: row 1, column 'id': '2' is also in row 2 of a"):
            self.check(self.Ids("a", ["1", "2"]), self.Ids("b", ["2"]))

    def test_duplicate_id_detector_many_duplicates_are_rejected(self) -> None:
        ids = [str(number) for number in range(5_000)]
        with pytest.raises(BadInputError, match="is also in"):
            self.check(self.Ids("a", ids, ids))

    def test_duplicate_id_detector_uses_eight_bytes_per_row(self) -> None:
        register = id_checks.DuplicateIdDetector()
        for start in range(0, 1_000_000, 50_000):
            register.add(pa.array([f"n{number:015x}" for number in range(start, start + 50_000)]))
        assert sum(part.nbytes for part in register._hashes) == 8_000_000
        register.check([])


@pytest.mark.parametrize(
    ("era", "number"),
    [("era1", 1), ("0575", 575), ("12", 12), ("eraX", None), ("", None), ("era-1", None), ("1.5", None)],
)
def test_era_number_label_returns_its_number(era: str, number: int | None) -> None:
    assert era_number(era) == number


def test_unpack_real_archive_of_2017_has_its_numbers_of_rows(
    volume: Volume, unpacked: Callable[..., Unpacked], real_archive: Path
) -> None:
    outcome = unpacked(archive_dataset(real_archive))

    dataset = outcome.dataset
    assert (dataset.training.rows, dataset.validation.rows, outcome.live.rows) == (3336, 382, 1919 + 53)
    assert (len(dataset.features), dataset.training.eras) == (50, 120)
    assert dataset.validation.data_types == {"validation": 382}
    assert outcome.live.data_types == {"test": 1919, "live": 53}
    for path in (volume.training, volume.validation, volume.live):
        columns = ["id", "era", "data_type", *(f"feature{n}" for n in range(1, 51)), "target"]
        assert read(path).schema.names == columns
    assert np.isnan(read(volume.live)["target"].to_numpy()).all()
    assert read(volume.training)["target"].to_numpy().mean() == 0.5
