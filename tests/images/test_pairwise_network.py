"""The pairwise network: equal to its definition, and its pairs."""

from __future__ import annotations

import numpy as np
import pytest

from numerai_contract.split import Split, write_split
from numerai_contract.tables import Table
from tests.images.conftest import Runner, run_program
from tests.images.split_data import write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "pairwise_network"


def test_pairwise_network_equals_the_mean_over_partners(runner: Runner) -> None:
    found = run_program(runner, "pairs.py")
    # the fast mean over partners equals a loop over them with the whole network
    assert found["fast"] == pytest.approx(found["loop"], abs=1e-6)
    assert np.std(found["loop"]) > 0.02
    # with a separate normalisation of the right rows, a shift of all of them would have no effect
    assert found["effect_of_shift"] > 0.1
    for epoch in found["epochs"]:
        # rows 0 to 4 are above, 5 to 11 below; each row above is in two pairs with the same row below, in both orders
        assert len(epoch) == 10
        assert all(left_is_above == (left < 5) and (left < 5) != (right < 5) for left, right, left_is_above in epoch)
        pairs = {(left, right) for left, right, _ in epoch}
        assert {(right, left) for left, right in pairs} == pairs
        assert len({row for pair in pairs for row in pair}) == 10
    first, second = ({tuple(pair) for pair in epoch} for epoch in found["epochs"])
    assert first != second


def test_pairwise_network_one_validation_class_exits_with_65(runner: Runner) -> None:
    write_split_tables(runner.directory)
    table = Table(runner.directory / "training.parquet")
    validation = table.targets > 0.5
    validation[np.flatnonzero(validation)[100:]] = False
    write_split(runner.directory, table.ids, Split(validation.astype(np.float32), validation), None)
    finished = runner.run(MODEL)
    assert finished.code == 65
    assert "no target of the split's validation part is below 0.5" in finished.lines[-1]
