"""The finished datasets of the data volume: training and validation tables that runs share.

A dataset's directory appears by one rename, with its metadata, and never changes afterwards.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numerai_pipeline.dataset.tables import TableStats
    from numerai_pipeline.storage.layout import DataLayout, DatasetLayout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableSummary:
    """Summary of a table.

    Attributes
    ----------
    rows : int
        Rows.
    eras : int
        Number of eras.
    data_types : dict
        Data type → rows.
    missing : int
        Missing feature values (NaN).
    without_target : int
        Rows whose target is unknown: dropped from a training table, NaN in the others.
    """

    rows: int
    eras: int
    data_types: dict[str, int]
    missing: int
    without_target: int

    @classmethod
    def of(cls, stats: TableStats) -> TableSummary:
        """Summarize the statistics of a table."""
        return cls(stats.rows, len(stats.eras), dict(stats.data_types), stats.missing, stats.without_target)


@dataclass(frozen=True)
class DatasetRequest:
    """The run's choices that a dataset was made for.

    Attributes
    ----------
    feature_set : str
        Feature set; ignored for an archive, which has one set only.
    target : str, optional
        Target; None for the default.
    every_nth_era : int
        Training on every n-th era.
    embargo : int, optional
        Embargo in weeks; None for the default of the target.
    payout_days : int, optional
        Where the target is None: days ahead that the payout target of the round looks, which decides the default.
    targets : tuple of str
        Further targets, sorted.
    """

    feature_set: str
    target: str | None
    every_nth_era: int
    embargo: int | None
    payout_days: int | None
    targets: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values; without further targets as before there were any, so that keys stay the same."""
        return _without_empty(asdict(self), "targets")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DatasetRequest:
        """Restore a request from the result of :meth:`to_json`."""
        return cls(**{**content, "targets": tuple(content.get("targets", ()))})


@dataclass(frozen=True)
class Dataset:
    """A finished dataset.

    Attributes
    ----------
    key : str
        Hash of everything that decides the tables; the name of the directory.
    layout : DatasetLayout
        Paths of the tables.
    source, version : str
        The run's source, and the dataset's version; for an archive the zip's file name.
    round : str
        The round that the dataset was made for.
    created_at : str
        When, ISO 8601 in UTC.
    request : DatasetRequest
        The run's choices.
    made_from : dict
        Role of each raw file used → SHA-256.
    known_before : int, optional
        For walk-forward runs, the first era of the weeks that share the dataset; None for a dataset of live runs.
    feature_set : str
        Name of the feature set; ``all`` for an archive.
    features : dict
        Feature → type (``int8`` or ``float32``), in the order of the columns.
    target : str
        The source's name of the target; the column of the tables is ``target``.
    target_days : int
        Trading days that the target looks ahead.
    embargo : int
        Weeks to leave out between training and the rows to predict.
    known_until : str
        The newest era with a known target.
    training, validation : TableSummary
        The two tables.
    further_targets : tuple of str
        The source's names of further targets, which are also their columns in the two tables; sorted.
    """

    key: str
    layout: DatasetLayout
    source: str
    version: str
    round: str
    created_at: str
    request: DatasetRequest
    made_from: dict[str, str]
    known_before: int | None
    feature_set: str
    features: dict[str, str]
    target: str
    target_days: int
    embargo: int
    known_until: str
    training: TableSummary
    validation: TableSummary
    further_targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        targets = ", ".join(repr(name) for name in (self.target, *self.further_targets))
        return (
            f"dataset {self.key}: training {self.training.rows:,} rows in {self.training.eras:,} eras, validation"
            f" {self.validation.rows:,} rows in {self.validation.eras:,} eras; {len(self.features):,} features"
            f" ({self.feature_set}), target {targets}, known until era {self.known_until}"
        )

    @property
    def every_nth_era(self) -> int:
        """Training is on every n-th era."""
        return self.request.every_nth_era

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, without the paths."""
        content = _without_empty(asdict(self), "further_targets") | {"request": self.request.to_json()}
        del content["layout"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], layout: DatasetLayout) -> Dataset:
        """Restore a dataset from the result of :meth:`to_json`."""
        tables = {name: TableSummary(**content[name]) for name in ("training", "validation")}
        further = tuple(content.get("further_targets", ()))
        request = DatasetRequest.from_json(content["request"])
        return cls(**{**content, **tables, "request": request, "further_targets": further}, layout=layout)

    @classmethod
    def read(cls, layout: DatasetLayout) -> Dataset:
        """Read the metadata of a finished dataset.

        Raises
        ------
        NotFoundError
            When there is no such dataset.
        BadInputError
            When its metadata is damaged.
        """
        try:
            dataset = cls.from_json(json.loads(layout.metadata.read_text(encoding="utf-8")), layout)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{layout.directory}: the dataset does not exist: clear `unzip` and run it again"
            raise NotFoundError(msg) from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"{layout.metadata}: damaged ({error}): remove {layout.directory}, clear `unzip` and run it again"
            raise BadInputError(msg) from None
        if dataset.key != layout.directory.name:
            msg = f"{layout.metadata}: is of another dataset: remove {layout.directory}, clear `unzip` and run it again"
            raise BadInputError(msg)
        return dataset


def find_datasets(
    data: DataLayout,
    *,
    source: str,
    version: str,
    feature_set: str,
    target: str | None,
    every_nth_era: int,
    targets: tuple[str, ...] = (),
    embargo: int | None = None,
    payout_days: int | None = None,
) -> list[Dataset]:
    """Find the datasets that runs with these parameters have made, newest round first.

    Those of walk-forward runs are not among them.

    Parameters
    ----------
    data : DataLayout
        The data volume.
    source, version, feature_set, target, every_nth_era, targets, embargo
        Parameters of the run, as requested: the version ``latest`` matches every version, the target None only the
        default target; further targets are sorted.
    payout_days : int, optional
        Days ahead that the payout target of the round looks: where the default target depends on it, another payout
        target's datasets do not match. None matches all.

    Returns
    -------
    list of Dataset
        Sorted by round and time of creation, newest first. Damaged datasets are logged and omitted.
    """
    found = []
    for directory in data.datasets_root.glob("[!.]*"):
        try:
            dataset = Dataset.read(data.dataset(directory.name))
        except (NotFoundError, BadInputError) as error:
            log.warning("%s", error)
            continue
        request = dataset.request
        if (
            dataset.known_before is None
            and dataset.source == source
            and version in ("latest", dataset.version)
            and (request.feature_set, request.target, request.targets) == (feature_set, target, targets)
            and (request.every_nth_era, request.embargo) == (every_nth_era, embargo)
            and (None in (payout_days, request.payout_days) or payout_days == request.payout_days)
        ):
            found.append(dataset)
    return sorted(found, key=_age, reverse=True)


def _without_empty(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name or value}


def _age(dataset: Dataset) -> tuple[int, str, str]:
    return int(dataset.round) if dataset.round.isdecimal() else 0, dataset.created_at, dataset.key
