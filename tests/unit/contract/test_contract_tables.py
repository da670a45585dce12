"""Tables: every rule of the contract, and the message of its violation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, MissingInputError
from numerai_contract.sources import ParquetSource
from numerai_contract.tables import NO_ERA, JoinedTable, Table, era_number
from numerai_contract.targets import classes, values

Columns = dict[str, Any]
Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "number"),
    [("era1", 1), ("era0132", 132), ("0001", 1), ("1232", 1232), ("eraX", NO_ERA), ("X", NO_ERA)]
    + [(name, None) for name in ("", "era", "era1a", "x1", "-1", "1.5", "week 3")],
)
def test_era_number_valid_and_invalid_names(name: str, number: int | None) -> None:
    assert era_number(name) == number


def test_table_parquet_is_read(write: Writer, columns: Columns) -> None:
    columns["target"][3] = np.nan
    table = Table(write(columns))
    assert len(table) == 12
    assert table.ids.to_pylist() == columns["id"]
    assert table.era_numbers.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    np.testing.assert_array_equal(table.targets, columns["target"])
    assert table.feature_names == ("feature1", "feature2", "feature3")
    features = table.features()
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, 1], columns["feature2"])
    assert table.of_type("train").all()
    assert not table.of_type("live").any()


def test_table_csv_equals_parquet(write: Writer, columns: Columns, tmp_path: Path) -> None:
    columns["target"][2] = np.nan
    columns["feature2"][5] = np.nan
    columns["id"][0] = "0012"
    path = tmp_path / "training.csv"
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    pa_csv.write_csv(table, path)
    parquet, csv = Table(write(columns)), Table(path)
    assert csv.ids.to_pylist() == parquet.ids.to_pylist()
    np.testing.assert_array_equal(csv.targets, parquet.targets)
    np.testing.assert_allclose(csv.features(), parquet.features(), rtol=1e-6)
    np.testing.assert_array_equal(csv.era_numbers, parquet.era_numbers)


def test_table_int8_features_stay_int8(write: Writer, columns: Columns) -> None:
    for index in (1, 2, 3):
        columns[f"feature{index}"] = np.arange(12, dtype=np.int8) % 5
    table = Table(write(columns))
    assert table.feature_dtype == np.int8
    assert table.features().dtype == np.int8
    np.testing.assert_array_equal(table.features()[:, 0], columns["feature1"])


@pytest.mark.parametrize("statistics", [True, False])
def test_table_int8_with_missing_values_becomes_float32(columns: Columns, tmp_path: Path, statistics: bool) -> None:
    for index in (1, 2, 3):
        columns[f"feature{index}"] = np.arange(12, dtype=np.int8) % 5
    columns["feature2"] = pa.array([None, *columns["feature2"][1:].tolist()], type=pa.int8())
    path = tmp_path / "training.parquet"
    pq.write_table(pa.table(columns), path, write_statistics=statistics)
    table = Table(path)
    assert table.feature_dtype == np.float32
    assert np.isnan(table.features()[0, 1])
    assert table.features()[1:, 1].tolist() == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_table_int8_without_statistics_stays_int8(columns: Columns, tmp_path: Path) -> None:
    for index in (1, 2, 3):
        columns[f"feature{index}"] = np.arange(12, dtype=np.int8) % 5
    path = tmp_path / "training.parquet"
    pq.write_table(pa.table(columns), path, write_statistics=False)
    assert Table(path).feature_dtype == np.int8


def test_table_of_float32_reads_features_once(write: Writer, columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.arange(12, dtype=np.int8) % 5
    path = write(columns | {"feature1": features, "feature2": features, "feature3": features})
    monkeypatch.setattr(ParquetSource, "has_nulls", lambda *_: pytest.fail("the check for int8 reads all features"))
    table = Table(path, feature_dtype=np.float32)
    found = table.features()
    assert table.feature_dtype == found.dtype == np.dtype(np.float32)
    assert found.tolist() == [[value] * 3 for value in features.tolist()]


def test_table_without_features_reads_the_other_columns(
    write: Writer, columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    batches = ParquetSource.batches

    def recording(source: ParquetSource, names: list[str], rows: int) -> Any:
        read.extend(names)
        return batches(source, names, rows)

    monkeypatch.setattr(ParquetSource, "batches", recording)
    table = Table(write(columns), ())
    assert table.ids.to_pylist() == columns["id"]
    assert (table.feature_names, table.features().shape) == ((), (12, 0))
    assert set(read) == {"id", "era", "data_type", "target"}


def test_table_selected_rows_are_read_in_batches(
    columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # batches of at least 256 rows, so that a table of 1,000 takes several, across row groups that end elsewhere
    monkeypatch.setattr("numerai_contract.tables._BATCH_BYTES", 1)
    rows = 1_000
    columns = {
        "id": [f"n{row}" for row in range(rows)],
        "era": ["eraX"] * rows,
        "data_type": ["live"] * rows,
        "feature_a": np.arange(rows, dtype=np.float32),
        "target": np.full(rows, np.nan, dtype=np.float32),
    }
    path = tmp_path / "tournament.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=300)
    table = Table(path)
    wanted = np.zeros(rows, dtype=bool)
    wanted[[0, 299, 300, 777, 999]] = True
    assert table.features(wanted)[:, 0].tolist() == [0, 299, 300, 777, 999]
    batches = list(table.batches())
    assert len(batches) > 3
    assert np.concatenate([positions for positions, _ in batches]).tolist() == list(range(rows))
    for positions, block in table.batches(wanted):
        assert block[:, 0].tolist() == positions.tolist()


def test_table_features_have_the_requested_order(write: Writer, columns: Columns) -> None:
    swapped = {name: columns[name] for name in ("id", "feature3", "feature1", "era", "data_type", "target", "feature2")}
    table = Table(write(swapped), feature_names=("feature1", "feature2", "feature3"))
    np.testing.assert_array_equal(table.features()[:, 2], columns["feature3"])


def _change(columns: Columns, name: str, row: int, value: Any) -> Columns:
    values = list(columns[name])
    values[row] = value
    return columns | {name: values}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda c: {k: v for k, v in c.items() if k != "era"},
            r"training\.parquet: column 'era' is missing \(found: id,",
        ),
        (lambda c: {k: v for k, v in c.items() if k != "target"}, "column 'target' is missing"),
        (
            lambda c: {k: v for k, v in c.items() if "feature" not in k},
            "no column has a name that begins with 'feature'",
        ),
        (lambda c: {k: v[:0] for k, v in c.items()}, "the table has no rows"),
        (lambda c: _change(c, "target", 4, 1.5), r"column 'target' is 1.5 in row 5 \(id n4\)"),
        (lambda c: _change(c, "target", 0, -0.01), "outside .0, 1. in 1 of 12 rows"),
        (lambda c: _change(c, "target", 0, float("inf")), "column 'target' is inf in row 1"),
        (lambda c: _change(c, "id", 7, "n2"), "column 'id' has 'n2' twice, in rows 3 and 8"),
        (lambda c: _change(c, "id", 7, ""), "column 'id' is empty in row 8"),
        (lambda c: _change(c, "id", 7, None), "column 'id' is empty in row 8"),
        (lambda c: _change(c, "era", 2, "week3"), "column 'era' is 'week3' in row 3"),
        (lambda c: _change(c, "era", 2, None), "column 'era' is None in row 3"),
        (lambda c: _change(c, "data_type", 11, "tset"), "column 'data_type' is 'tset' in row 12; allowed are train"),
        (lambda c: c | {"feature2": ["a"] * 12}, "column 'feature2' has type string, not a number"),
    ],
)
def test_table_violation_of_the_contract_raises_bad_data(
    write: Writer, columns: Columns, broken: Callable[[Columns], Columns], message: str
) -> None:
    path = write(broken(columns))
    with pytest.raises(BadDataError, match=message):
        Table(path)


def test_table_infinite_feature_names_column_and_row(write: Writer, columns: Columns) -> None:
    columns["feature3"][9] = -np.inf
    with pytest.raises(BadDataError, match=r"column 'feature3' is infinite in row 10 \(id n9\)"):
        Table(write(columns)).features()


def test_table_missing_features_raises_bad_data(write: Writer, columns: Columns) -> None:
    with pytest.raises(BadDataError, match="1 of the 2 features of the training table are missing: feature9"):
        Table(write(columns), feature_names=("feature1", "feature9"))


def test_table_with_target_has_its_values_and_name(write: Writer, columns: Columns) -> None:
    found = np.linspace(0, 1, 12).astype(np.float32)
    found[3] = np.nan
    table = Table(write({**columns, "target_cyrusd_60": found}))
    other = table.with_target("target_cyrusd_60")
    np.testing.assert_array_equal(other.targets, found)
    assert other.target_name == "target_cyrusd_60"
    assert other.feature_names == table.feature_names == ("feature1", "feature2", "feature3")
    # the table itself keeps its target
    assert (table.target_name, table.targets.tolist()) == ("target", columns["target"].tolist())
    joined = JoinedTable(other, other.with_features(["feature1", "feature2", "feature3"]))
    assert joined.target_name == "target_cyrusd_60"
    np.testing.assert_array_equal(joined.targets, [*found, *found])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "column 'target_x' is missing"),
        (["high"] * 12, "column 'target_x' has type string, not a number"),
        ([0.5, 2.0] * 6, "column 'target_x' is 2 in row 2"),
    ],
)
def test_table_with_invalid_target_names_its_column(
    write: Writer, columns: Columns, targets: list[Any] | None, message: str
) -> None:
    table = Table(write(columns if targets is None else {**columns, "target_x": targets}))
    with pytest.raises(BadDataError, match=message):
        table.with_target("target_x")


@pytest.mark.parametrize(("labels", "function"), [(np.full(12, 0.25), values), (np.full(12, np.nan), classes)])
def test_labels_of_a_further_target_name_its_column(
    write: Writer, columns: Columns, labels: Any, function: Callable[..., Any]
) -> None:
    table = Table(write({**columns, "target_x": labels.astype(np.float32)})).with_target("target_x")
    with pytest.raises(BadDataError, match="column 'target_x' is"):
        function(table)


def test_table_missing_file_names_the_task(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"training\.parquet: the file does not exist. Run the task"):
        Table(tmp_path / "training.parquet")


@pytest.mark.parametrize("name", ["training.parquet", "training.csv"])
def test_table_garbage_raises_bad_data(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00garbage" * 9)
    with pytest.raises(BadDataError, match=name):
        Table(tmp_path / name)


def test_table_csv_with_text_for_numbers_raises_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text("id,era,data_type,feature1,target\na,era1,train,0.5,1\nb,era1,train,high,0\n")
    with pytest.raises(BadDataError, match="high"):
        Table(path).features()


def test_table_unknown_suffix_raises_bad_data(tmp_path: Path) -> None:
    (tmp_path / "training.arrow").touch()
    with pytest.raises(BadDataError, match=r"a table must be a \.parquet or a \.csv"):
        Table(tmp_path / "training.arrow")


def test_table_repeated_column_raises_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text("id,era,data_type,feature1,feature1,target\na,era1,train,0.5,0.5,1\n")
    with pytest.raises(BadDataError, match="'feature1' appears more than once"):
        Table(path)


def test_table_with_invalid_manifest_raises_bad_data(write: Writer, columns: Columns) -> None:
    path = write(columns)
    content = path.read_bytes()
    with outputs.output(path, rows=12, columns=list(columns), inputs=None) as part:
        part.write_bytes(content)
    assert len(Table(path)) == 12
    # the same size, one bit flipped
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(BadDataError, match=r"training\.parquet: its content differs from its manifest .* `unzip`"):
        Table(path)


@pytest.mark.parametrize("manifest", ["", "[]", json.dumps({"sha256": "x"})])
def test_table_unreadable_manifest_raises_bad_data(write: Writer, columns: Columns, manifest: str) -> None:
    path = write(columns)
    outputs.manifest_path(path).write_text(manifest)
    with pytest.raises(BadDataError, match="not a manifest"):
        Table(path)


def _joined(write: Writer, columns: Columns, dtype: Any = np.float32) -> JoinedTable:
    later = {name: values[:8] for name, values in columns.items()}
    later |= {"id": [f"v{row}" for row in range(8)], "data_type": ["validation"] * 8}
    later |= {f"feature{index + 1}": np.arange(8).astype(dtype) + index for index in range(3)}
    training = Table(write(columns))
    return JoinedTable(training, Table(write(later, "validation.parquet"), training.feature_names))


def test_joined_table_has_the_rows_of_both_in_order(write: Writer, columns: Columns) -> None:
    joined = _joined(write, columns)
    assert len(joined) == 20
    assert joined.ids.to_pylist() == [*columns["id"], *(f"v{row}" for row in range(8))]
    assert joined.era_numbers.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2]
    assert joined.of_type("validation").tolist() == [False] * 12 + [True] * 8
    assert joined.features()[:12, 0].tolist() == columns["feature1"].tolist()
    assert joined.features()[12:].tolist() == [[row, row + 1, row + 2] for row in range(8)]
    assert joined.describe_row(0) == "row 1 (id n0)"
    assert joined.describe_row(12) == "row 1 (id v0)"
    assert joined.describe_row(19) == "row 8 (id v7)"


def test_joined_table_batches_have_positions_in_both(write: Writer, columns: Columns) -> None:
    joined = _joined(write, columns)
    rows = np.zeros(20, dtype=bool)
    rows[[3, 11, 12, 19]] = True
    batches = list(joined.batches(rows))
    assert np.concatenate([positions for positions, _ in batches]).tolist() == [3, 11, 12, 19]
    assert joined.features(rows).tolist() == joined.features()[rows].tolist()
    rows[:12] = False
    assert [positions.tolist() for positions, _ in joined.batches(rows)] == [[12, 19]]


def test_joined_table_int8_and_float32_are_float32(write: Writer, columns: Columns) -> None:
    mixed = _joined(write, columns, np.int8)
    assert mixed.feature_dtype == np.float32
    assert {block.dtype for _, block in mixed.batches()} == {np.dtype(np.float32)}
    integers = columns | {f"feature{index + 1}": np.arange(12, dtype=np.int8) for index in range(3)}
    both = _joined(write, integers, np.int8)
    assert both.feature_dtype == np.int8
    assert both.features().dtype == np.int8
