"""Hidden groups in a season's features: nearest neighbours find them, products of two features do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from practice.effects import TARGET_SHARES
from practice.hidden_groups import HiddenGroups
from practice.model import SeasonModel, SeasonSize
from practice.season import FILES, Season, write_season
from tests.images.signals import write_hidden_structure

# lasting effects are a tenth of the lean
PLAIN = SeasonSize(rows_per_era=100, train_eras=4, validation_eras=20, lasting_effect=0.003, missing_share=0)
GROUPED = replace(PLAIN, group_lean=0.3)


def rows_of(model: SeasonModel, feature_set: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of one set, shape (6000, features), around 0, and the expected targets."""
    chosen = [model.features.names.index(name) for name in model.features.sets[feature_set]]
    eras = [model.era(era) for era in range(1000, 1060)]
    features = np.concatenate([era.features[chosen] for era in eras], axis=1).T.astype(np.float32) - 2
    return features, np.concatenate([era.expected for era in eras])


def learned_by_products(
    features: NDArray[np.float32], hidden: NDArray[np.float32], unseen: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Learn `hidden` by ridge regression on all products of two features, and predict it for the rows of `unseen`."""

    def products(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        first, second = np.triu_indices(rows.shape[1])
        return np.hstack([np.ones((len(rows), 1), np.float32), rows, rows[:, first] * rows[:, second]])

    columns = products(features)
    weights = np.linalg.solve(columns.T @ columns + 100 * np.eye(columns.shape[1]), columns.T @ hidden)
    predicted: NDArray[np.float32] = products(unseen) @ weights
    return predicted


def learned_by_neighbours(
    features: NDArray[np.float32], hidden: NDArray[np.float32], unseen: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Predict each row of `unseen` with the hidden value of its nearest row of `features`."""
    distances = (features**2).sum(axis=1) - 2 * unseen @ features.T
    return hidden[distances.argmin(axis=1)]


@pytest.mark.parametrize("feature_set", ["small", "medium", "all"])
def test_nearest_neighbours_find_the_groups(feature_set: str) -> None:
    features, hidden = rows_of(SeasonModel(GROUPED, seed=3), feature_set)
    seen = learned_by_neighbours(features[:4_000], hidden[:4_000], features[4_000:])
    assert np.corrcoef(seen, hidden[4_000:])[0, 1] > 0.7


def test_products_of_features_do_not_find_the_groups() -> None:
    features, hidden = rows_of(SeasonModel(GROUPED, seed=3), "small")
    seen = learned_by_products(features[:4_000], hidden[:4_000], features[4_000:])
    # they find the ordinary part of the law, about a tenth of it
    assert np.corrcoef(seen, hidden[4_000:])[0, 1] < 0.15


def test_every_sign_is_in_adjacent_features() -> None:
    random = np.random.default_rng(3)
    order = random.permutation(40)
    signs = HiddenGroups(order, random).draw(2_000, random).signs[order].astype(int)
    alike = np.abs(signs @ signs.T) / 2_000
    same_sign = np.subtract.outer(np.arange(40), np.arange(40)) % 15 == 0
    assert (alike[same_sign] == 1).all()
    assert (alike[~same_sign] < 0.15).all()


def test_targets_correlate_with_the_groups_as_requested() -> None:
    model = SeasonModel(replace(GROUPED, rows_per_era=2_000), seed=3)
    for era in (model.era(number) for number in (1000, 1001)):
        for target in era.targets.values():
            # five values have less information than the latent one
            assert 0.22 < np.corrcoef(era.expected, target)[0, 1] < 0.32


def test_groups_keep_layout_and_shares(tmp_path: Path) -> None:
    plain = write_season(tmp_path / "plain", PLAIN, seed=3)
    grouped = write_season(tmp_path / "grouped", GROUPED, seed=3)
    late = SeasonModel(PLAIN, seed=3).features.late
    assert grouped["features.json"].read_bytes() == plain["features.json"].read_bytes()
    for name in ("train.parquet", "validation.parquet", "live.parquet"):
        one, other = pq.read_table(plain[name]), pq.read_table(grouped[name])
        assert one.schema.equals(other.schema, check_metadata=True)
        for column in ("id", "era", "data_type"):
            assert one[column].equals(other[column])
        features = [column for column in one.column_names if column.startswith("feature_") and column not in late]
        before, after = (np.stack([table[column] for column in features]).astype(int) for table in (one, other))
        assert (before != after).any()
        # a value changes sides, at the same distance from the middle
        assert (abs(before - 2) == abs(after - 2)).all()
        assert np.allclose(np.bincount(after.ravel()) / after.size, 0.2, atol=0.01)
    targets = pq.read_table(grouped["train.parquet"])["target"].to_numpy()
    assert np.allclose(np.unique(targets, return_counts=True)[1] / targets.size, TARGET_SHARES, atol=0.01)


def test_groups_of_the_same_seed_are_the_same(tmp_path: Path) -> None:
    once, again = (write_season(tmp_path / name, GROUPED, seed=3) for name in ("once", "again"))
    assert all(once[name].read_bytes() == again[name].read_bytes() for name in FILES)
    other = write_season(tmp_path / "other", GROUPED, seed=4)
    assert not pq.read_table(once["train.parquet"]).equals(pq.read_table(other["train.parquet"]))


def test_season_with_groups_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {Season(tmp_path, size).directory for size in (PLAIN, GROUPED)}
    assert len(folders) == 2


def test_group_lean_out_of_range_is_refused() -> None:
    for lean in (-0.1, 0.95, float("nan")):
        with pytest.raises(ValueError, match=r"0 \(not at all\) to 0\.9"):
            SeasonSize(group_lean=lean)
    with pytest.raises(ValueError, match="at least 30 features"):
        SeasonSize(small=29, group_lean=0.1)


def test_float_tables_can_have_hidden_groups(tmp_path: Path) -> None:
    # with such a lean, the target is the membership in a group
    signal = write_hidden_structure(tmp_path, 5_000, lean=5.0)
    assert signal.best < 0.1
    assert signal.linear > 0.6
    training, tournament = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("training", "tournament"))
    columns = [f"feature{number}" for number in range(1, 51)]
    features, unseen = (
        np.stack([table[column].to_numpy() for column in columns], axis=1) for table in (training, tournament)
    )
    assert features.dtype == np.float32
    assert np.allclose(np.quantile(features, [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=0.02)
    hidden, known = training["target"].to_numpy(), tournament["target"].to_numpy()
    assert set(hidden) == {0, 1}
    validation = ~np.isnan(known)
    assert validation.sum() == 1_000
    unseen, known = unseen[validation] - 0.5, known[validation]
    features -= 0.5
    assert np.corrcoef(learned_by_neighbours(features, hidden, unseen), known)[0, 1] > 0.7
    assert abs(np.corrcoef(learned_by_products(features, hidden, unseen), known)[0, 1]) < 0.15
