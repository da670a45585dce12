"""The difficulties of real data: effects of single eras, overlapping targets, drift, groups and missing values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray

from practice.model import TARGET_WEEKS, V53, SeasonModel, SeasonSize
from practice.season import write_season

pytestmark = pytest.mark.slow

SIZE = SeasonSize(rows_per_era=2_000, medium=42, all_features=42)
FIRST, LAST = 1133, 1233  # training and validation eras of this size
ERAS = range(1140, 1220)


def features_of(model: SeasonModel, names: list[str], eras: range) -> NDArray[np.float32]:
    """Features in some eras, shape (eras, features, rows)."""
    columns = [model.features.generated.index(name) for name in names]
    return np.stack([model.era(era).features[columns] for era in eras]).astype(np.float32)


def effects_by_era(model: SeasonModel, target: str) -> NDArray[np.float64]:
    """Estimate the effects of all drivers in every era by least squares; shape (eras, drivers)."""
    found = []
    for era in ERAS:
        rows = model.era(era)
        inputs = rows.features.T.astype(float) - 2
        present = inputs.std(axis=0) > 0
        estimated = np.full(len(present), np.nan)
        estimated[present] = np.linalg.lstsq(inputs[:, present], rows.targets[target] - 0.5, rcond=None)[0]
        found.append(estimated)
    return np.array(found)


@pytest.mark.parametrize("target", ["target_ender_20", "target_ender_60", "target_cyrusd_60"])
def test_era_effects_overlap_within_the_horizon_only(target: str) -> None:
    model = SeasonModel(SeasonSize(2_000, medium=42, all_features=42, lasting_effect=0, era_effect=0.05), seed=3)
    effects, weeks = effects_by_era(model, target), TARGET_WEEKS[target]

    def correlation(lag: int) -> float:
        one, other = effects[:-lag].ravel(), effects[lag:].ravel()
        known = ~np.isnan(one + other)
        return float(np.corrcoef(one[known], other[known])[0, 1])

    # the noise of the estimates takes about a fifth
    assert 0.7 * (1 - 1 / weeks) < correlation(1) < 1 - 1 / weeks
    assert 0.3 < correlation(weeks // 2) < 0.5
    assert abs(correlation(weeks)) < 0.12
    assert abs(correlation(weeks + 3)) < 0.12


def test_targets_of_one_era_share_weeks() -> None:
    model = SeasonModel(SeasonSize(2_000, medium=42, all_features=42, lasting_effect=0, era_effect=0.05), seed=3)
    effects = {name: effects_by_era(model, name) for name in ("target_ender_20", "target_ender_60")}
    one, other = (np.nan_to_num(found).ravel() for found in effects.values())
    assert 0.4 < np.corrcoef(one, other)[0, 1] < 0.75  # the root of 4 / 12 apart from noise


def test_score_next_to_the_training_eras_is_too_high_without_embargo() -> None:
    near, far = [], []
    for seed in range(3):
        effects = SeasonModel(V53, seed).effects
        law = np.array([effects.lasting + effects.of_era(era, "target_ender_60", 12) for era in range(1, 1233)])
        for end in range(200, 1200, 20):
            learned = law[end - 174 : end].mean(axis=0)
            # covariance with the targets, in units of the features' standard deviation
            scores = law[end : end + 30] @ learned / np.linalg.norm(learned)
            near.append(scores[:4].mean())
            far.append(scores[12:].mean())
    assert np.mean(near) > 1.4 * np.mean(far) > 0.01


def test_lasting_law_is_calibrated_and_the_rest_is_noise() -> None:
    # 12 weeks apart, so that the effects of the eras are independent
    model = SeasonModel(SeasonSize(4_000, train_eras=1_100, validation_eras=100), seed=3)
    made = [model.era(era, features=False) for era in range(36, 1236, 12)]
    assert np.allclose([rows.expected.mean() for rows in made], 0.5, atol=0.02)
    # targets are ranks within an era, but drift moves the expectation of a whole era
    expected = np.concatenate([rows.expected - rows.expected.mean() for rows in made])
    slopes = []
    for target in ("target_ender_20", "target_ender_60", "target_cyrusd_20"):
        known = np.concatenate([rows.targets[target] for rows in made])
        slopes.append(np.polyfit(expected, known, 1)[0])
    assert np.allclose(slopes, 1, atol=0.15)
    # correlation of the law with the targets' latent values, of 0.012 ** 2 a product and 0.008 ** 2 a driver
    explained = float(model.effects.lasting @ model.effects.lasting)
    assert explained == pytest.approx(8 * 0.012**2 + 120 * 0.008**2, rel=1e-3)
    correlation = np.mean([np.corrcoef(rows.expected, rows.targets["target"])[0, 1] for rows in made])
    assert 0.8 * np.sqrt(explained) < correlation < 1.1 * np.sqrt(explained)


def test_expected_target_of_a_file_is_that_of_its_rows(tmp_path: Path) -> None:
    size = SeasonSize(rows_per_era=100, train_eras=20, validation_eras=15, missing_share=0.1)
    table = pd.read_parquet(write_season(tmp_path, size, seed=5)["train.parquet"])
    model = SeasonModel(size, seed=5)
    features = table.filter(like="feature_")
    assert features.isna().any().any()
    found = model.effects.expected_target({name: column.to_numpy() for name, column in features.items()})
    made = np.concatenate([model.era(int(era)).expected for era in table.era.unique()])
    assert np.allclose(found, made, atol=1e-6)
    small = model.effects.expected_target({name: features[name].to_numpy() for name in model.features.sets["small"]})
    assert 0.4 < np.corrcoef(small, made)[0, 1] < 0.9


def test_trending_features_correlate_with_the_era() -> None:
    model = SeasonModel(SIZE, seed=3)
    names = sorted(set(model.features.generated) - set(model.features.late) - set(model.features.gaps))
    means = features_of(model, names, range(FIRST, LAST)).mean(axis=2)
    moved = dict(zip(names, np.abs(means[-90:-45].mean(axis=0) - means[:10].mean(axis=0)), strict=True))
    trends = dict(zip(names, np.abs(np.polyfit(np.arange(len(means)), means, 1)[0]) * len(means), strict=True))
    trending = [trends[name] for name in names if name in model.features.trending]
    others = [trends[name] for name in names if name not in model.features.trending]
    assert len(trending) >= 8
    assert max(moved.values()) > 0.05
    assert np.mean(trending) > 2 * np.mean(others)


def test_features_correlate_in_families_and_groups() -> None:
    model = SeasonModel(SIZE, seed=3)
    drivers = model.features.drivers
    rows = np.concatenate(list(features_of(model, drivers, range(1200, 1210))), axis=1)
    correlations = np.corrcoef(rows)
    families = np.arange(len(drivers)) // 5
    same = np.equal.outer(families, families) & ~np.eye(len(drivers), dtype=bool)
    assert 0.4 < correlations[same].mean() < 0.6
    beyond = correlations[~np.equal.outer(families, families)]
    # most pairs of features of different families have nothing in common, those of a group have some
    assert abs(np.median(beyond)) < 0.05
    in_group = correlations[drivers_in_one_group(model) & ~np.equal.outer(families, families)]
    assert 0.1 < in_group.mean() < 0.3


def drivers_in_one_group(model: SeasonModel) -> NDArray[np.bool_]:
    groups = model.features.groups
    numbers = [groups[name] for name in model.features.drivers]
    return np.equal.outer(numbers, numbers)


def test_missing_values_have_numerais_two_forms() -> None:
    model = SeasonModel(SIZE, seed=3)
    late, gaps = model.features.late, model.features.gaps
    assert (len(late), len(gaps)) == (2, 1)
    values = features_of(model, late, range(FIRST, LAST))
    absent = (values == 2).all(axis=2)  # by era and feature
    assert absent[0].all()
    assert not absent[50:].any()
    assert (np.diff(absent.astype(int), axis=0) <= 0).all()  # from an era on a feature exists
    missing = features_of(model, gaps, ERAS) == -1
    assert missing.mean() == pytest.approx(0.01, abs=0.001)
    assert (missing.mean(axis=2) > 0).all()
    others = sorted(set(model.features.generated) - set(gaps))
    assert set(np.unique(features_of(model, others, range(1200, 1210)))) == {0, 1, 2, 3, 4}
