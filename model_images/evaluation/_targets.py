"""The known targets of the scored rows, era by era.

They are the validation table's. In a walk-forward run the targets of the live rows are hidden from the models: they are
NaN in the live table, and stored in ``targets.parquet`` (``id``, ``era``, ``target``), which only the evaluation reads.
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

    from numerai_contract.tables import TableView

FILE = "targets.parquet"


class Era(NamedTuple):
    """The rows of one era whose target is known.

    Attributes
    ----------
    number : int or None
        12 for ``era12`` and ``0012``; None for rows of an unknown era (``eraX``).
    rows : numpy.ndarray of int, shape (rows of the era,)
        Their indices among the scored rows, ascending.
    targets : numpy.ndarray of float64, shape (rows of the era,)
        In [0, 1].
    """

    number: int | None
    rows: NDArray[np.intp]
    targets: NDArray[np.float64]


class KnownTargets(NamedTuple):
    """The known targets.

    Attributes
    ----------
    eras : tuple of Era
        In order; empty when no target is known.
    binary : bool
        Whether all of them are 0 or 1.
    era_numbers : numpy.ndarray of int32, shape (rows of the table,)
        The era of each row, with a known target or not.
    """

    eras: tuple[Era, ...]
    binary: bool
    era_numbers: NDArray[np.int32]

    @property
    def rows(self) -> NDArray[np.intp]:
        """Indices of all rows with a known target, era by era."""
        return np.concatenate([era.rows for era in self.eras]) if self.eras else np.empty(0, dtype=np.intp)

    @property
    def targets(self) -> NDArray[np.float64]:
        """Their targets, in the order of `rows`."""
        return np.concatenate([era.targets for era in self.eras]) if self.eras else np.empty(0)


def known_targets(
    table: TableView, *, usable: NDArray[np.bool_] | None = None, hidden: Path | None = None
) -> KnownTargets:
    """Collect the known targets.

    Parameters
    ----------
    table
        The rows that are scored.
    usable
        Marks of the rows to use, shape (rows of the table,); by default all.
    hidden
        Path of the hidden targets, if any; they take precedence over the table's.

    Raises
    ------
    BadDataError
        When this file exists and is invalid.
    """
    targets = table.targets.astype(np.float64)
    era_numbers = table.era_numbers.copy()
    if hidden is not None and hidden.is_file():
        _apply_hidden_targets(hidden, table, targets, era_numbers)
    is_known = ~np.isnan(targets)
    known = np.flatnonzero(is_known if usable is None else is_known & usable)
    known = known[np.argsort(era_numbers[known], kind="stable")]
    numbers, first = np.unique(era_numbers[known], return_index=True)
    eras = tuple(
        Era(None if number == NO_ERA else int(number), rows, targets[rows])
        for number, rows in zip(numbers, np.split(known, first[1:]) if len(known) else [], strict=True)
    )
    return KnownTargets(eras, target_kind(targets[known].astype(np.float32)) is TargetKind.BINARY, era_numbers)


def two_blocks(eras: tuple[Era, ...], embargo: int) -> tuple[tuple[Era, ...], tuple[Era, ...]]:
    """Divide eras into an earlier and a later block, without the eras of an embargo between them.

    Parameters
    ----------
    eras
        In order, at least two; one of unknown number is the earliest.
    embargo
        Weeks between the blocks, by the numbers of the eras: targets of neighbouring eras overlap. Of few eras, at most
        a third is left out.
    """
    middle = len(eras) // 2
    border = eras[middle].number or 0
    first = sum(era.number is None or era.number < border - embargo // 2 for era in eras)
    second = sum(era.number is None or era.number < border + embargo - embargo // 2 for era in eras)
    if second - first > len(eras) // 3:
        first = middle - len(eras) // 6
        second = first + len(eras) // 3
    return eras[:first], eras[second:]


def _apply_hidden_targets(
    path: Path, table: TableView, targets: NDArray[np.float64], era_numbers: NDArray[np.int32]
) -> None:
    """Overwrite targets and eras of the table with those of a file of hidden targets."""
    outputs.verify(path, "unzip")
    try:
        found = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error}). {outputs.rerun_hint('unzip')}") from error
    missing = [name for name in ("id", "era", "target") if name not in found.column_names]
    if missing:
        raise BadDataError(f"{path.name}: column {missing[0]!r} is missing. {outputs.rerun_hint('unzip')}")
    values = found["target"].cast(pa.float64()).to_numpy().astype(np.float64)
    if (~np.isnan(values) & ~((values >= 0) & (values <= 1))).any():
        raise BadDataError(f"{path.name}: column 'target' has values outside [0, 1]. {outputs.rerun_hint('unzip')}")
    names = found["era"].cast(pa.string()).to_pylist()
    numbers = {name: era_number(name or "") for name in set(names)}
    unreadable = [name for name, number in numbers.items() if number is None]
    if unreadable:
        raise BadDataError(
            f"{path.name}: column 'era' has {unreadable[0]!r}; valid eras are like 'era12', '0012' or 'eraX'."
        )
    positions = pc.index_in(found["id"].cast(pa.string()), value_set=table.ids.combine_chunks())
    present = pc.is_valid(positions).to_numpy() & ~np.isnan(values)
    rows = pc.fill_null(positions, 0).to_numpy()[present]
    targets[rows] = values[present]
    era_numbers[rows] = np.array([numbers[name] for name in names], dtype=np.int32)[present]
