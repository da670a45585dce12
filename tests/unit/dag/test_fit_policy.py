"""The data that a run needs, by its parameter ``fit`` and the day of its round."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.core.errors import NotFoundError
from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.dag.fit_policy import FitPolicy
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.numerai_api.tournament import Round
from numerai_pipeline.storage.layout import DataLayout
from tests.unit.containers.planned_run import add_dataset

SATURDAY = datetime(2026, 8, 15, 13, tzinfo=UTC)
MAX_AGE_WEEKS = 4


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path / "volume")


def policy(data: DataLayout, **parameters: Any) -> FitPolicy:
    return FitPolicy(RunParameters(source="practice", **parameters), data, MAX_AGE_WEEKS)


def the_round(number: int = 1300, *, saturday: bool = False) -> Round:
    opens = SATURDAY if saturday else SATURDAY + timedelta(days=3)
    return Round(number, opens, opens + timedelta(hours=1))


def raw(number: int = 1300, **changes: Any) -> RawDataset:
    files = {"live": RawFile("live.parquet", "0123")}
    return RawDataset(
        **{"kind": "v5", "source": "practice", "round": str(number), "version": "v5.3", "files": files} | changes
    )


@pytest.mark.parametrize(
    ("fit", "saturday", "live_only"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("always", True, False),
        ("always", False, False),
        ("never", True, True),
        ("never", False, True),
    ],
)
def test_needs_live_only_with_finished_fits(data: DataLayout, fit: str, saturday: bool, live_only: bool) -> None:
    add_dataset(data, "old", "1295")
    assert policy(data, fit=fit).needs_live_only(the_round(saturday=saturday)) == live_only


def test_needs_live_only_without_dataset_fits_or_fails(data: DataLayout) -> None:
    assert not policy(data).needs_live_only(the_round())
    with pytest.raises(NotFoundError, match=r"at most 4 weeks old \(NUMERAI_FIT_MAX_AGE_WEEKS\).*fit=auto"):
        policy(data, fit="never").needs_live_only(the_round())


@pytest.mark.parametrize(("number", "live_only"), [(1280, True), (1279, False), (1300, True), (1301, False)])
def test_needs_live_only_dataset_has_an_age(data: DataLayout, number: int, live_only: bool) -> None:
    """Four weeks are twenty rounds; a dataset of a later round knows the future."""
    add_dataset(data, "found", str(number))
    assert policy(data).needs_live_only(the_round(1300)) == live_only


@pytest.mark.parametrize(
    "parameters",
    [
        {"feature_set": "medium"},
        {"target": "target_x_20"},
        {"targets": ["target_x_20"]},
        {"every_nth_era": 4},
        {"embargo": 3},
    ],
)
def test_needs_live_only_dataset_of_other_parameters_is_none(data: DataLayout, parameters: dict[str, Any]) -> None:
    add_dataset(data, "other", "1295")
    assert not policy(data, **parameters).needs_live_only(the_round())


def test_needs_live_only_dataset_of_the_same_further_targets(data: DataLayout) -> None:
    add_dataset(data, "several", "1295", targets=("target_x_20", "target_y_60"))
    assert not policy(data).needs_live_only(the_round())
    assert policy(data, targets=["target_y_60", "target_x_20"]).needs_live_only(the_round())


def test_newest_is_of_the_newest_round(data: DataLayout) -> None:
    for key, number in (("b", 1290), ("a", 1295), ("c", 1285), ("future", 1301)):
        add_dataset(data, key, str(number))
    assert policy(data).newest(raw()).key == "a"


def test_newest_removed_dataset_names_the_remedy(data: DataLayout) -> None:
    with pytest.raises(NotFoundError, match="clear `download` and run it again"):
        policy(data).newest(raw())


def test_older_datasets_are_usable_for_the_same_rows(data: DataLayout) -> None:
    new = add_dataset(data, "new", "1300")
    for key, number in (("old", 1295), ("older", 1290), ("too_old", 1279)):
        add_dataset(data, key, str(number))
    for key, changed in (
        ("features", {"features": {"another": "int8"}}),
        ("version", {"version": "v5.2"}),
        ("target", {"target": "target_y"}),
        ("further_targets", {"further_targets": ["target_z_20"]}),
        ("embargo", {"embargo": 16}),
        ("backtest", {"known_before": 1000}),
    ):
        layout = add_dataset(data, key, "1296").layout
        layout.metadata.write_text(json.dumps(json.loads(layout.metadata.read_text()) | changed))
    assert [each.key for each in policy(data).older(raw(), new)] == ["old", "older"]


@pytest.mark.parametrize("changes", [{"era": 1000}, {"kind": "archive"}])
def test_older_datasets_are_none_for_backtests_and_archives(data: DataLayout, changes: dict[str, Any]) -> None:
    new = add_dataset(data, "new", "1300")
    add_dataset(data, "old", "1295")
    assert policy(data).older(raw(**changes), new) == []
