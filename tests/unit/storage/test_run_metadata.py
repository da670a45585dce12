"""The decisions of `unzip` in a run's directory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.run_metadata import RunMetadata
from tests.samples import payout

METADATA = RunMetadata(
    dag="numerai_tournament",
    run_id="manual__1",
    round="1300",
    created_at="2026-08-15T13:00:00+00:00",
    closes="2026-08-15T14:00:00+00:00",
    dataset="new",
    older_datasets=("old", "older"),
    references=None,
    live_sha256="0123",
    prefers_finished=True,
    may_fit=False,
    payout=payout(60),
    benchmark="v53_lgbm_ender60",
)


def test_run_metadata_round_trip(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    content = METADATA.write(layout, {"version": "v5.3"})
    assert json.loads(layout.run_metadata.read_text()) == content
    assert (content["version"], content["older_datasets"]) == ("v5.3", ["old", "older"])
    assert RunMetadata.read(layout) == METADATA
    assert METADATA.run == "numerai_tournament/manual__1"


def test_run_metadata_scoring_has_payout_and_benchmark() -> None:
    scoring = METADATA.scoring
    assert scoring["BENCHMARK"] == "v53_lgbm_ender60"
    assert json.loads(scoring["PAYOUT"]) == [
        {"name": "correlation", "display_name": "corr60", "days": 60, "multiplier": 3.0},
        {"name": "meta_model_contribution", "display_name": "mmc60", "days": 60, "multiplier": 15.0},
    ]
    assert replace(METADATA, payout=(), benchmark=None).scoring == {}


def test_run_metadata_of_an_earlier_release_has_no_payout(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    content = METADATA.write(layout, {})
    layout.run_metadata.write_text(json.dumps({k: v for k, v in content.items() if k not in ("payout", "benchmark")}))
    assert RunMetadata.read(layout) == replace(METADATA, payout=(), benchmark=None)


def test_run_metadata_further_values_do_not_replace_decisions(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    METADATA.write(layout, {"dataset": "another", "may_fit": True})
    assert RunMetadata.read(layout) == METADATA


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"dag": "numerai_tournament"}', "[" * 100_000])
def test_run_metadata_missing_or_damaged_names_the_remedy(tmp_path: Path, content: str | None) -> None:
    layout = RunLayout(tmp_path)
    if content is not None:
        layout.run_metadata.write_text(content)
    with pytest.raises(BadInputError, match=r"run\.json: missing or damaged .*: clear `unzip` and run it again"):
        RunMetadata.read(layout)
