"""Which data a run needs, by its parameter ``fit``: new data to learn from, or only the live rows for finished fits.

- ``auto``: on Saturday, when the data has changed, new fits; on other days, when a round is open for an hour and there
  is nothing new to learn, the newest finished fits, and a new fit only of a task that has none.
- ``always``: new fits of the newest data.
- ``never``: finished fits only.

A dataset with finished fits may be at most ``NUMERAI_FIT_MAX_AGE_WEEKS`` old.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import NotFoundError
from numerai_pipeline.core.round_calendar import ROUNDS_A_WEEK, is_saturday
from numerai_pipeline.dataset.store import Dataset, find_datasets

if TYPE_CHECKING:
    from numerai_pipeline.core.parameters import RunParameters
    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.numerai_api.tournament import Round
    from numerai_pipeline.storage.layout import DataLayout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitPolicy:
    """The decision of one run.

    Attributes
    ----------
    parameters : RunParameters
        The run's parameters.
    data : DataLayout
        The data volume.
    max_age_weeks : int
        Longest age of a dataset whose fits are used.
    """

    parameters: RunParameters
    data: DataLayout
    max_age_weeks: int

    def needs_live_only(self, the_round: Round) -> bool:
        """Whether the run of a round downloads the live file only.

        Raises
        ------
        NotFoundError
            When only finished fits are allowed, and there is no dataset with any.
        """
        if not self.prefers_finished(is_saturday(the_round.open_time)):
            return False
        known = self._known(the_round.number)
        if not known and self.parameters.fit == "never":
            msg = (
                f"no dataset of these parameters is at most {self.max_age_weeks} weeks old"
                " (NUMERAI_FIT_MAX_AGE_WEEKS), so there is no finished fit: start the run with fit=auto"
            )
            raise NotFoundError(msg)
        if known:
            log.info("fit=%s: finished fits predict this round, so only its live file is needed", self.parameters.fit)
        return bool(known)

    def prefers_finished(self, on_saturday: bool) -> bool:
        """Whether finished fits are better than new ones."""
        return self.parameters.fit == "never" or (self.parameters.fit == "auto" and not on_saturday)

    def newest(self, raw: RawDataset) -> Dataset:
        """Return the dataset of a run that has downloaded the live file only.

        Raises
        ------
        NotFoundError
            When it was removed since.
        """
        known = self._known(int(raw.round))
        if not known:
            msg = "the dataset of the finished fits was removed since `download` ran: clear `download` and run it again"
            raise NotFoundError(msg)
        return known[0]

    def older(self, raw: RawDataset, dataset: Dataset) -> list[Dataset]:
        """Return the other datasets whose fits can predict the run's live rows, newest first."""
        if raw.kind == "archive" or raw.era is not None:
            return []
        return [
            known
            for known in self._known(int(raw.round))
            if known.key != dataset.key
            and known.version == dataset.version
            and known.features == dataset.features
            and (known.target, known.further_targets) == (dataset.target, dataset.further_targets)
            and known.embargo == dataset.embargo
        ]

    def _known(self, round_number: int) -> list[Dataset]:
        parameters = self.parameters
        datasets = find_datasets(
            self.data,
            source=parameters.source,
            version=parameters.version,
            feature_set=parameters.feature_set,
            target=parameters.target,
            every_nth_era=parameters.every_nth_era,
            targets=parameters.further_targets,
            embargo=parameters.embargo,
        )
        oldest = round_number - self.max_age_weeks * ROUNDS_A_WEEK
        return [each for each in datasets if each.round.isdecimal() and oldest <= int(each.round) <= round_number]
