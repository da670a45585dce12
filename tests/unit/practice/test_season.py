"""The generated data: layout, statistics, and reproducibility."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import practice.season
from practice.effects import TARGET_SHARES
from practice.model import BENCHMARK_MODELS, META_MODEL, TARGET_WEEKS, V53, FeatureSet, SeasonModel, SeasonSize
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
        assert all(field.type == pa.int8() for field in pq.read_schema(files[name]) if field.name in sets["all"])
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
    late = SeasonModel(SMALL, 1).features.late
    features = table.filter(like="feature_").drop(columns=late).to_numpy().ravel()
    values, counts = np.unique(features[~np.isnan(features)], return_counts=True)
    assert list(values) == [0, 1, 2, 3, 4]
    assert np.allclose(counts / counts.sum(), 0.2, atol=0.03)
    for target in TARGET_WEEKS:
        shares = table[target].value_counts(normalize=True).sort_index()
        assert list(shares.index) == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert np.allclose(shares, TARGET_SHARES, atol=0.01)


def test_signal_is_weak_varies_by_era_and_can_be_learned() -> None:
    model = SeasonModel(SeasonSize(rows_per_era=2000, missing_share=0), seed=67)
    eras = [model.era(era) for era in range(1100, 1232)]
    ideal = [numerai_corr(era.expected, era.targets["target_ender_20"]) for era in eras]
    assert 0.06 < np.mean(ideal) < 0.13
    assert np.std(ideal) > 0.03  # chance alone gives .022 with so many rows

    small = [model.features.names.index(name) for name in model.features.sets["small"]]
    inputs = [era.features[small].T.astype(float) - 2 for era in eras]
    learned = np.concatenate(inputs[:80])
    target = np.concatenate([era.targets["target_ender_20"] for era in eras[:80]]) - 0.5
    weights = np.linalg.solve(learned.T @ learned + 100 * np.eye(len(small)), learned.T @ target)
    linear = [
        numerai_corr(rows @ weights, era.targets["target_ender_20"])
        for rows, era in zip(inputs[84:], eras[84:], strict=True)
    ]
    assert 0.02 < np.mean(linear) < np.mean(ideal[84:])
    assert min(linear) < 0


def test_example_predictions_are_valid_and_in_file_order(files: dict[str, Path]) -> None:
    for part in ("live", "validation"):
        table = pd.read_parquet(files[f"{part}.parquet"])
        from_csv = pd.read_csv(files[f"{part}_example_preds.csv"])
        from_parquet = pd.read_parquet(files[f"{part}_example_preds.parquet"])
        assert list(from_csv.columns) == ["id", "prediction"]
        assert list(from_csv.id) == list(from_parquet.index) == list(table.index)
        assert from_csv.prediction.between(0, 1, inclusive="neither").all()
    assert files["live_example_preds.csv"].read_text().startswith("id,prediction\nn")


def test_benchmark_and_meta_model_have_the_rows_of_validation(files: dict[str, Path]) -> None:
    rows = pd.read_parquet(files["validation.parquet"])
    tables = [pd.read_parquet(files[f"{name}.parquet"]) for name in ("validation_benchmark_models", "meta_model")]
    assert list(tables[0].columns) == ["era", "data_type", *BENCHMARK_MODELS]
    assert list(tables[1].columns) == ["era", "data_type", META_MODEL]
    for table in tables:
        assert list(table.index) == list(rows.index)
        assert list(table.era) == list(rows.era)
        values = table.drop(columns=["era", "data_type"]).to_numpy()
        assert ((values > 0) & (values < 1)).all()


def test_published_predictions_are_of_models_of_rising_quality() -> None:
    model = SeasonModel(SeasonSize(rows_per_era=2000), seed=67)
    made = [(model.era(era, features=False).expected, model.published(era)[1]) for era in range(1160, 1170)]
    quality = {
        name: np.mean([np.corrcoef(expected, published[name])[0, 1] for expected, published in made])
        for name in ("example", *BENCHMARK_MODELS, META_MODEL)
    }
    assert 0.2 < quality["example"] < min(quality[name] for name in BENCHMARK_MODELS)
    assert max(quality.values()) < 0.95
    assert quality[META_MODEL] > 0.4


def test_files_depend_on_the_seed_only(files: dict[str, Path], tmp_path: Path) -> None:
    digest = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    again = write_season(tmp_path / "again", SMALL, seed=1)
    other = write_season(tmp_path / "other", SMALL, seed=2)
    for name in FILES:
        assert hashlib.sha256(again[name].read_bytes()).hexdigest() == digest[name]
        assert hashlib.sha256(other[name].read_bytes()).hexdigest() != digest[name]


def test_rows_are_the_same_as_in_other_releases() -> None:
    rows = SeasonModel(SMALL, seed=67).era(1225)
    targets = b"".join(target.tobytes() for target in rows.targets.values())
    content = hashlib.sha256(rows.ids.tobytes() + rows.features.tobytes() + targets).hexdigest()
    assert content[:12] == "a3ee4b436807"


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


def test_v53_size_has_numerais_numbers() -> None:
    train, validation = season_eras(V53, 1334)
    assert (train, validation) == (range(1, 575), range(575, 1233))
    assert round(sum(map(V53.rows_in, train)) / 1e6, 2) == 2.75
    assert round(sum(map(V53.rows_in, validation)) / 1e6, 2) == 4.11
    assert V53.rows_in(1233) == V53.rows_in(1240) == 6_700
    features = SeasonModel(V53, 67).features
    assert {name: len(names) for name, names in features.sets.items()} == {"small": 42, "medium": 780, "all": 3_555}
    assert features.generated == features.sets["small"]


def test_generated_feature_set_decides_the_columns_only(files: dict[str, Path], tmp_path: Path) -> None:
    generated: FeatureSet
    for generated in ("small", "medium"):
        size = replace(SMALL, generated=generated)
        fewer = write_season(tmp_path / generated, size, seed=1)
        assert fewer["features.json"].read_bytes() == files["features.json"].read_bytes()
        names = json.loads(fewer["features.json"].read_text())["feature_sets"][generated]
        for name in ("train.parquet", "validation.parquet", "live.parquet"):
            columns = ["era", "data_type", *names, *TARGET_WEEKS, "id"]
            table = pq.read_table(fewer[name])
            assert table.column_names == columns
            assert table.equals(pq.read_table(files[name], columns=columns))
        assert fewer["meta_model.parquet"].read_bytes() == files["meta_model.parquet"].read_bytes()


def test_writing_reports_progress_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practice.season, "_PROGRESS_SECONDS", 0.0)
    today = datetime(2026, 8, 15, 13, tzinfo=UTC)
    season = Season(tmp_path, SMALL, 1, today=today)
    lines: list[str] = []
    season.file("train.parquet", 1334, lines.append)
    assert lines[3] == "train.parquet: 3 of 10 eras"

    def interrupt(line: str) -> None:
        if "5 of 20" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        season.file("validation.parquet", 1334, interrupt)
    assert not list(tmp_path.rglob("*validation.parquet*"))
    whole = season.file("validation.parquet", 1334)
    assert pq.ParquetFile(whole).metadata.num_rows == 2_000


def test_season_removes_old_parts_of_killed_processes(tmp_path: Path) -> None:
    season = Season(tmp_path, SMALL, 1, today=datetime(2026, 8, 15, 13, tzinfo=UTC))
    parts = [season.directory / f".{name}.x.part" for name in ("old", "new")]
    season.directory.mkdir()
    for part in parts:
        part.touch()
    os.utime(parts[0], (0, 0))
    season.file("features.json", 1334)
    assert [part.exists() for part in parts] == [False, True]


def test_size_that_is_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="a lasting effect is 0 to"):
        SeasonSize(era_effect=0.06)
    with pytest.raises(ValueError, match="missing values is 0 to"):
        SeasonSize(missing_share=0.6)
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
