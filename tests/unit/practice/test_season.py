"""The generated data: layout, statistics, and reproducibility."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import practice.season
from practice.model import TARGET_SHARES, TARGET_WEEKS, SeasonModel, SeasonSize
from practice.rounds import SeasonRound, era_label
from practice.season import FILES, Season, season_eras, write_season

SMALL = SeasonSize(rows_per_era=100, train_eras=10, validation_eras=20, small=12, medium=16, all_features=24)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_season(tmp_path_factory.mktemp("season"), SMALL, seed=1)


@lru_cache
def _gaussian(count: int) -> NDArray[np.float64]:
    normal = NormalDist()
    return np.array([normal.inv_cdf((index + 0.5) / count) for index in range(count)])


def numerai_corr(predictions: NDArray[Any], target: NDArray[Any]) -> float:
    """Compute Numerai's CORR of one era by the published formula."""
    ranked = _gaussian(predictions.size)[predictions.argsort().argsort()]
    centered = target - target.mean()
    corr = np.corrcoef(np.sign(ranked) * np.abs(ranked) ** 1.5, np.sign(centered) * np.abs(centered) ** 1.5)
    return float(corr[0, 1])


def test_tables_have_numerais_layout(files: dict[str, Path]) -> None:
    features = json.loads(files["features.json"].read_text())
    assert features.keys() == {"feature_sets", "targets"}
    sets = features["feature_sets"]
    assert {name: len(names) for name, names in sets.items()} == {"small": 12, "medium": 16, "all": 24}
    assert set(sets["small"]) < set(sets["medium"]) < set(sets["all"])
    assert all(name.startswith("feature_") and name.count("_") == 3 for name in sets["all"])
    for name in ("train.parquet", "validation.parquet", "live.parquet"):
        table = pd.read_parquet(files[name])
        assert table.index.name == "id"
        assert table.index.is_unique
        assert table.index.str.fullmatch(r"n[0-9a-f]{15}").all()
        assert list(table.columns) == ["era", "data_type", *sets["all"], *features["targets"]]
        assert (table[sets["all"]].dtypes == np.int8).all()
        assert (table[features["targets"]].dtypes == np.float32).all()
        assert table.groupby("era").size().eq(100).all()


def test_train_validation_and_live_have_consecutive_eras(files: dict[str, Path]) -> None:
    eras = {name: pd.read_parquet(files[f"{name}.parquet"]).era for name in ("train", "validation", "live")}
    live = SeasonRound(1334).era
    assert list(eras["live"].unique()) == [era_label(live)]
    assert list(eras["validation"].unique()) == [era_label(era) for era in range(live - 20, live)]
    assert list(eras["train"].unique()) == [era_label(era) for era in range(live - 30, live - 20)]


def test_targets_that_end_after_the_round_are_unknown(files: dict[str, Path]) -> None:
    train = pd.read_parquet(files["train.parquet"])
    assert set(train.data_type) == {"train"}
    assert not train[list(TARGET_WEEKS)].isna().any().any()
    live = pd.read_parquet(files["live.parquet"])
    assert set(live.data_type) == {"live"}
    assert live[list(TARGET_WEEKS)].isna().all().all()
    validation = pd.read_parquet(files["validation.parquet"])
    unknown = validation.groupby("era")[list(TARGET_WEEKS)].agg(lambda column: column.isna().all())
    for target, weeks in TARGET_WEEKS.items():
        assert list(unknown[target]) == [False] * (20 - weeks) + [True] * weeks
    assert (validation.data_type == np.where(validation.target.isna(), "test", "validation")).all()


def test_live_rows_of_saturday_are_in_later_validation_files(tmp_path: Path) -> None:
    before = write_season(tmp_path / "before", SMALL, seed=1, round_number=1334)
    after = write_season(tmp_path / "after", SMALL, seed=1, round_number=1399)
    live = pd.read_parquet(before["live.parquet"])
    later = pd.read_parquet(after["validation.parquet"])
    scored = later[later.era == live.era.iloc[0]]
    pd.testing.assert_frame_equal(
        live.drop(columns=["data_type", *TARGET_WEEKS]), scored.drop(columns=["data_type", *TARGET_WEEKS])
    )
    assert scored.target.notna().all()
    assert before["train.parquet"].read_bytes() == after["train.parquet"].read_bytes()


def test_rounds_of_a_week_have_distinct_ids() -> None:
    model = SeasonModel(SMALL, 1)
    ids = [set(model.era(1234, weekday).ids) for weekday in range(5)]
    assert len(set.union(*ids)) == 5 * SMALL.rows_per_era


def test_features_and_targets_have_numerais_shares(files: dict[str, Path]) -> None:
    table = pd.read_parquet(files["train.parquet"])
    features = table.filter(like="feature_").to_numpy()
    assert np.allclose(np.bincount(features.ravel(), minlength=5) / features.size, 0.2, atol=0.02)
    assert set(np.unique(features)) == {0, 1, 2, 3, 4}
    for target in TARGET_WEEKS:
        shares = table[target].value_counts(normalize=True).sort_index()
        assert list(shares.index) == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert np.allclose(shares, TARGET_SHARES, atol=0.01)


def test_signal_is_weak_and_varies_by_era() -> None:
    model = SeasonModel(SeasonSize(rows_per_era=2000), seed=67)
    eras = [model.era(era) for era in range(1100, 1220)]
    ideal = [numerai_corr(era.score, era.targets["target_ender_20"]) for era in eras]
    assert 0.02 < np.mean(ideal) < 0.035
    assert np.std(ideal) > 0.022  # more than chance alone gives with so many rows
    assert min(ideal) < 0 < max(ideal)

    small = [model.feature_names.index(name) for name in model.feature_sets["small"]]
    inputs = [era.features[small].T.astype(float) - 2 for era in eras]
    learned = np.concatenate(inputs[:80])
    target = np.concatenate([era.targets["target_ender_20"] for era in eras[:80]]) - 0.5
    weights = np.linalg.solve(learned.T @ learned + 100 * np.eye(len(small)), learned.T @ target)
    linear = [
        numerai_corr(rows @ weights, era.targets["target_ender_20"])
        for rows, era in zip(inputs[80:], eras[80:], strict=True)
    ]
    assert 0.01 < np.mean(linear) < np.mean(ideal[80:])


def test_example_predictions_are_valid_and_in_file_order(files: dict[str, Path]) -> None:
    for part in ("live", "validation"):
        table = pd.read_parquet(files[f"{part}.parquet"])
        from_csv = pd.read_csv(files[f"{part}_example_preds.csv"])
        from_parquet = pd.read_parquet(files[f"{part}_example_preds.parquet"])
        assert list(from_csv.columns) == ["id", "prediction"]
        assert list(from_csv.id) == list(from_parquet.index) == list(table.index)
        assert from_csv.prediction.between(0, 1, inclusive="neither").all()
    assert files["live_example_preds.csv"].read_text().startswith("id,prediction\nn")


def test_files_depend_on_the_seed_only(files: dict[str, Path], tmp_path: Path) -> None:
    digest = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    again = write_season(tmp_path / "again", SMALL, seed=1)
    other = write_season(tmp_path / "other", SMALL, seed=2)
    for name in FILES:
        assert hashlib.sha256(again[name].read_bytes()).hexdigest() == digest[name]
        assert hashlib.sha256(other[name].read_bytes()).hexdigest() != digest[name]


def test_rows_do_not_depend_on_the_batch_size(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(practice.season, "_CELLS_AT_ONCE", 3 * 100 * 24)
    again = write_season(tmp_path, SMALL, seed=1)
    assert pq.ParquetFile(again["train.parquet"]).num_row_groups == 4
    assert pq.read_table(again["train.parquet"]).equals(pq.read_table(files["train.parquet"]))


def test_ids_of_a_large_season_are_unique() -> None:
    model = SeasonModel(SeasonSize(rows_per_era=20_000, small=2, medium=2, all_features=2), 1)
    ids = np.concatenate([model.era(era).ids for era in range(1, 11)])
    assert np.unique(ids).size == 200_000


def test_size_that_is_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SeasonSize(rows_per_era=0)
    with pytest.raises(ValueError, match="must grow"):
        SeasonSize(small=100)
    with pytest.raises(ValueError, match="do not fit"):
        season_eras(SeasonSize(train_eras=1200, validation_eras=100), 1334)
    with pytest.raises(ValueError, match="older than the season"):
        season_eras(SMALL, 1334 - 5 * 21)


def test_season_keeps_files_and_removes_unserved_rounds(tmp_path: Path) -> None:
    august = Season(tmp_path, SMALL, 1, today=datetime(2026, 8, 15, 13, tzinfo=UTC))
    august.prepare()
    kept = august.file("v5.3/live.parquet", 1334)
    first = kept.stat().st_mtime_ns
    again = Season(tmp_path, SMALL, 1, today=datetime(2026, 8, 15, 13, tzinfo=UTC))
    assert again.file("v5.3/live.parquet", 1334) == kept
    assert kept.stat().st_mtime_ns == first
    assert again.etag(kept) == august.etag(kept)
    other = Season(tmp_path, SMALL, 2, today=datetime(2026, 8, 15, 13, tzinfo=UTC))
    assert other.file("v5.3/live.parquet", 1334) != kept
    later = Season(tmp_path, SMALL, 1, today=datetime(2026, 9, 12, 13, tzinfo=UTC))
    later.prepare()
    assert not kept.exists()
    assert later.file("train.parquet", 1354).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_season_serves_the_current_and_recent_rounds() -> None:
    def season(day: int) -> Season:
        return Season(tmp, SMALL, today=datetime(2026, 8, day, 13, tzinfo=UTC), served_rounds=3)

    tmp = Path("/nonexistent")
    assert [number for number in range(1329, 1339) if season(15).is_served(number)] == [1332, 1333, 1334]
    assert season(15).rounds()[0] == season(15).current_round() == SeasonRound(1334)
    assert season(17).current_round() == SeasonRound(1334)
    assert season(18).current_round() == SeasonRound(1335)
