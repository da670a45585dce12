"""What came true: the rows of the tournament table whose target is known, era by era.

In a walk-forward run the models may not know the targets of the week they predict: they are NaN in the tournament table
and lie in ``targets.parquet`` (``id``, ``era``, ``target``), which only the evaluation reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.tables import NO_ERA, era_number
from numerai_contract.targets import TargetKind, target_kind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

FILE = "targets.parquet"


class Era(NamedTuple):
    """The rows of one era whose target is known.

    Attributes
    ----------
    number : int or None
        12 for ``era12`` and ``0012``; None for rows whose era is not told (``eraX``).
    rows : numpy.ndarray of int, shape (rows of the era,)
        Their places in the tournament table, ascending.
    targets : numpy.ndarray of float64, shape (rows of the era,)
        In [0, 1].
    """

    number: int | None
    rows: NDArray[np.intp]
    targets: NDArray[np.float64]


class Truth(NamedTuple):
    """All that is known.

    Attributes
    ----------
    eras : tuple of Era
        In order; none when no target is known.
    binary : bool
        Whether all targets, those of the training table included, are 0 or 1.
    era_numbers : numpy.ndarray of int32, shape (rows of the tournament table,)
        The era of each row, known or not.
    """

    eras: tuple[Era, ...]
    binary: bool
    era_numbers: NDArray[np.int32]

    @property
    def rows(self) -> NDArray[np.intp]:
        """Places of all rows whose target is known, era by era."""
        return np.concatenate([era.rows for era in self.eras]) if self.eras else np.empty(0, dtype=np.intp)

    @property
    def targets(self) -> NDArray[np.float64]:
        """Their targets, in the order of `rows`."""
        return np.concatenate([era.targets for era in self.eras]) if self.eras else np.empty(0)


def what_came_true(training: Table, tournament: Table, hidden: Path | None = None) -> Truth:
    """Collect the known targets.

    Parameters
    ----------
    training, tournament
        The run's tables.
    hidden
        Where targets may lie that the models were not told; they take precedence over the table's.

    Raises
    ------
    BadDataError
        When that file is there and is not as it should be.
    """
    targets = tournament.targets.astype(np.float64)
    era_numbers = tournament.era_numbers.copy()
    if hidden is not None and hidden.is_file():
        _uncover(hidden, tournament, targets, era_numbers)
    known = np.flatnonzero(~np.isnan(targets))
    known = known[np.argsort(era_numbers[known], kind="stable")]
    numbers, first = np.unique(era_numbers[known], return_index=True)
    eras = tuple(
        Era(None if number == NO_ERA else int(number), rows, targets[rows])
        for number, rows in zip(numbers, np.split(known, first[1:]) if len(known) else [], strict=True)
    )
    kinds = {target_kind(training.targets), target_kind(targets[known].astype(np.float32))}
    return Truth(eras, kinds == {TargetKind.BINARY}, era_numbers)


def _uncover(path: Path, table: Table, targets: NDArray[np.float64], era_numbers: NDArray[np.int32]) -> None:
    """Write what a file of targets says over what the table says."""
    outputs.verify(path, "unzip")
    try:
        found = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error}). {outputs.rerun('unzip')}") from error
    lacking = [name for name in ("id", "era", "target") if name not in found.column_names]
    if lacking:
        raise BadDataError(f"{path.name}: column {lacking[0]!r} is missing. {outputs.rerun('unzip')}")
    values = found["target"].cast(pa.float64()).to_numpy().astype(np.float64)
    if (~np.isnan(values) & ~((values >= 0) & (values <= 1))).any():
        raise BadDataError(f"{path.name}: column 'target' has values outside [0, 1]. {outputs.rerun('unzip')}")
    told = found["era"].cast(pa.string()).to_pylist()
    numbers = {name: era_number(name or "") for name in set(told)}
    unreadable = [name for name, number in numbers.items() if number is None]
    if unreadable:
        raise BadDataError(
            f"{path.name}: column 'era' has {unreadable[0]!r}; an era is like 'era12', '0012' or 'eraX'."
        )
    positions = pc.index_in(found["id"].cast(pa.string()), value_set=table.ids.combine_chunks())
    there = pc.is_valid(positions).to_numpy() & ~np.isnan(values)
    rows = pc.fill_null(positions, 0).to_numpy()[there]
    targets[rows] = values[there]
    era_numbers[rows] = np.array([numbers[name] for name in told], dtype=np.int32)[there]
