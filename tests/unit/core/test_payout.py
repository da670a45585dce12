"""The payout score of a round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numerai_pipeline.core.payout import PaidScore, payout_days
from numerai_pipeline.dataset.raw import RawDataset
from tests.samples import payout


def test_payout_days_are_those_of_the_paid_correlation() -> None:
    corr, mmc = payout(60)
    assert payout_days((corr, mmc)) == 60
    assert payout_days((corr, replace(mmc, days=20))) == 60
    assert payout_days((mmc,)) == 60


def test_payout_days_unknown_or_ambiguous_are_none() -> None:
    corr, _ = payout(60)
    assert payout_days(()) is None
    assert payout_days((corr, replace(corr, days=20))) is None


@pytest.mark.parametrize("field", ["name", "displayName", "totalScoreDays", "defaultMultiplier"])
def test_paid_score_missing_field_raises(field: str) -> None:
    fields = {"name": "correlation", "displayName": "corr60", "totalScoreDays": 60, "defaultMultiplier": 3}
    assert PaidScore.from_api(fields) == payout(60)[0]
    del fields[field]
    with pytest.raises(KeyError, match=field):
        PaidScore.from_api(fields)


def test_raw_dataset_payout_round_trip() -> None:
    raw = RawDataset("v5", "practice", "1343", "v5.3", {}, payout=payout(60))
    assert RawDataset.from_json(raw.to_json()) == raw
    assert raw.payout_days == 60
