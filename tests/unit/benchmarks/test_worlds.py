"""The worlds of ``benchmarks/worlds.py``: their laws, targets and tables, and the section of their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import world as worlds
from benchmarks.bench import dockerfile_environment
from benchmarks.models_page import write_section
from benchmarks.world import Law, draw_world, five_bins, write_world
from benchmarks.worlds import Scores, combine, entry_name, section
from tests.samples import ROOT


def least_squares(features: np.ndarray, targets: np.ndarray, live: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(features)), features])
    coefficients = np.linalg.lstsq(design, targets, rcond=None)[0]
    predicted: np.ndarray = np.column_stack([np.ones(len(live)), live]) @ coefficients
    return predicted


def test_draw_world_same_number_draws_the_same_world() -> None:
    first, again, other = (draw_world(number, eras=2, rows_per_era=50, live_rows=10) for number in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first.features, other.features)
    assert not np.array_equal(first.law, other.law)


def test_draw_world_features_have_five_equal_bins() -> None:
    world = draw_world(1, eras=4, live_rows=1_000)
    assert world.features.shape == (2_000, 42)
    assert world.live.shape == (1_000, 42)
    counts = np.bincount(world.features.ravel(), minlength=5)
    assert len(counts) == 5
    assert counts / counts.sum() == pytest.approx(np.full(5, 0.2), abs=0.01)


def test_draw_world_targets_have_their_shares_in_every_era() -> None:
    targets = draw_world(3, eras=5, live_rows=1).targets.reshape(5, 500)
    for era in targets:
        values, counts = np.unique(era, return_counts=True)
        assert values.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert counts.tolist() == [25, 100, 250, 100, 25]


def test_five_bins_order_of_values_is_kept() -> None:
    values = np.random.default_rng(1).normal(size=500)
    assert (np.diff(five_bins(values)[np.argsort(values)]) >= 0).all()


def test_law_terms_are_standardised_features_and_products() -> None:
    law = Law.draw(np.random.default_rng(1))
    features = np.random.default_rng(2).integers(0, 5, (50_000, 42), dtype=np.int8)
    terms = law.terms(features)
    assert terms.shape == (50_000, 50)
    assert terms.mean(axis=0) == pytest.approx(np.zeros(50), abs=0.03)
    assert terms.std(axis=0) == pytest.approx(np.ones(50), abs=0.03)
    assert len({tuple(pair) for pair in law.pairs}) == 8
    assert (law.pairs[:, 0] < law.pairs[:, 1]).all()
    # variances of independent terms add up
    assert law(features).std() == pytest.approx(np.linalg.norm([*law.features, *law.products]), rel=0.02)


def test_draw_world_lasting_law_is_weak_and_can_be_learned_from_all_eras() -> None:
    scores, signals = [], []
    for number in range(1, 4):
        world = draw_world(number)
        predicted = least_squares(world.features, world.targets, world.live)
        scores.append(np.corrcoef(predicted, world.law)[0, 1])
        signals.append(world.law.std())
    # sqrt(42 * .005 ** 2 + 8 * .006 ** 2)
    assert np.mean(signals) == pytest.approx(0.0366, rel=0.2)
    assert 0.3 < np.mean(scores) < 0.75


def test_draw_world_single_eras_have_effects_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"eras": 120, "rows_per_era": 200, "live_rows": 5_000}
    strong = draw_world(1, **sizes)
    monkeypatch.setattr(worlds, "_OF_AN_ERA", 0.0)
    without = draw_world(1, **sizes)

    def of(world: worlds.World) -> float:
        return float(np.corrcoef(least_squares(world.features, world.targets, world.live), world.law)[0, 1])

    assert of(without) > of(strong) + 0.03


def test_write_world_tables_are_those_of_a_run(tmp_path: Path) -> None:
    directory = tmp_path / "1"
    write_world(1, directory)
    training, validation, live = (
        pq.read_table(directory / f"{name}.parquet") for name in ("training", "validation", "live")
    )
    assert (len(training), len(validation)) == (96 * 500, 24 * 500)
    assert training.schema == validation.schema == live.schema
    assert training.column_names[:3] == ["id", "era", "data_type"]
    assert str(training.schema.field("feature_01").type) == "int8"
    assert training["era"].to_pylist()[-1] < validation["era"].to_pylist()[0]
    assert set(live["era"].to_pylist()) == {"eraX"}
    assert np.isnan(live["target"].to_numpy()).all()
    assert len(np.load(directory / worlds.LAW)) == len(live) == 20_000
    assert len({*training["id"].to_pylist(), *validation["id"].to_pylist()}) == 60_000
    write_world(1, directory)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_dockerfile_environment_has_the_variables_of_an_image() -> None:
    images = ROOT / "model_images"
    assert dockerfile_environment(images / "networks" / "Dockerfile")["KERAS_BACKEND"] == "jax"
    assert dockerfile_environment(images / "base" / "Dockerfile")["ARROW_DEFAULT_MEMORY_POOL"] == "system"
    assert dockerfile_environment(images / "classic" / "Dockerfile") == {}


def test_combine_gauss_rank_ignores_the_spread_of_a_model() -> None:
    random = np.random.default_rng(1)
    good, wide = random.normal(size=(2, 4_000))
    predictions = np.column_stack([0.5 + 0.001 * good, 0.5 + 0.1 * wide])
    assert np.corrcoef(combine(predictions, "mean"), wide)[0, 1] > 0.99
    assert np.corrcoef(combine(predictions, "gauss_rank"), wide)[0, 1] == pytest.approx(0.5**0.5, abs=0.03)


def test_entry_name_has_the_settings_in_order() -> None:
    assert entry_name("xgboost", {"MAX_TREES": "150", "COLSAMPLE": "1"}) == "xgboost COLSAMPLE=1 MAX_TREES=150"
    assert entry_name("svm", {}) == "svm"


def test_scores_are_compared_world_by_world() -> None:
    before, after = (Scores({"scores": scores}) for scores in ({"1": 0.3, "2": -0.1, "3": 0.5}, {"1": 0.4, "2": 0.2}))
    assert (before.inverted, after.inverted) == (1, 0)
    assert before.mean == pytest.approx(0.7 / 3)
    mean, error, better, compared = after.against(before)
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx(0.1)
    assert (better, compared) == (2, 2)


def test_section_has_a_column_for_each_label() -> None:
    results = {
        "before": {"revision": "a1", "machine": "2 cores", "entries": {"svm": {"scores": {"1": 0.3, "2": -0.1}}}},
        "after": {
            "revision": "b2",
            "machine": "2 cores",
            "entries": {"svm": {"scores": {"1": 0.4, "2": 0.2}, "cost": {"processor_seconds": 3.0}}},
        },
    }
    text = "\n".join(section(results))
    assert "| `svm` | 0.100 ± 0.200 | 2 | 1 | 0.300 ± 0.100 | 2 | 0 | 2 of 2: +0.200 ± 0.100 |" in text
    assert "| `svm` | after | 0.400 | 0.200 | 3 |" in text


def test_write_section_replaces_only_its_own_lines(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    begin, end = "<!-- worlds: written by benchmarks/worlds.py -->", "<!-- end of worlds -->"
    page.write_text(f"# Models\n\n{begin}\n\nold\n\n{end}\n\nlast\n")
    write_section("worlds", ["## New"], page)
    assert page.read_text() == f"# Models\n\n{begin}\n\n## New\n\n{end}\n\nlast\n"
    with pytest.raises(ValueError, match="known_signal: written by"):
        write_section("known_signal", ["## Other"], page)
