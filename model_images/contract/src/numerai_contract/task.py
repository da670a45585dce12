"""What an operation is handed: its parameters, its tables, a voice, and a place for its results."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numerai_contract import outputs
from numerai_contract.exits import BadParameterError
from numerai_contract.predictions import CLOSEST_TO_EDGE, checked, write_predictions
from numerai_contract.progress import Progress, duration
from numerai_contract.reports import library_versions, write_report
from numerai_contract.scores import score
from numerai_contract.tables import Table
from numerai_contract.targets import target_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from numerai_contract.parameters import Parameters
    from numerai_contract.scores import Scores


@dataclass(frozen=True)
class Learned:
    """What a model has to say about its training, for the report.

    Attributes
    ----------
    training_rows, held_out_rows
        The rows it learned from, and those it kept aside to know when to stop.
    chosen
        Hyperparameters, the number of trees: whatever someone comparing two runs would ask for.
    libraries
        Distributions whose versions matter to the result.
    split
        How well it did on the validation part of the split, for a model that learned on one.
    """

    training_rows: int
    held_out_rows: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    libraries: Sequence[str] = ()
    split: Scores | None = None


class Task:
    """One operation on one run.

    Parameters
    ----------
    parameters
        What was asked for.
    progress
        Where to say what is being done; by default standard output.

    Attributes
    ----------
    parameters : Parameters
    progress : Progress
    """

    def __init__(self, parameters: Parameters, progress: Progress | None = None) -> None:
        self.parameters = parameters
        self.progress = progress or Progress()
        self._began = time.monotonic()
        self._notes: list[str] = []

    def check(self) -> None:
        """Refuse bad parameters and places that cannot be written, before any work is done.

        Raises
        ------
        BadParameterError
            Naming the parameter, its value and what is allowed.
        """
        self.parameters.check()
        for name in ("PREDICTING", "REPORTING"):
            if name in self.parameters:
                outputs.check_writable(self.parameters.path(name), name)
        if "PREDICTING" not in self.parameters and "STORING" in self.parameters:
            # a preparation leaves its files there, perhaps after hours
            outputs.check_directory(self.parameters.storing, "STORING")

    @cached_property
    def training(self) -> Table:
        """The training table (TRAINING), checked; its features are not yet read."""
        return self._opened(Table(self.parameters.training))

    @cached_property
    def tournament(self) -> Table:
        """The tournament table (TESTING), checked; its features are those of the training table, in the same order."""
        return self._opened(Table(self.parameters.testing, feature_names=self.training.feature_names))

    def need_memory(self, mebibytes: float, reason: str) -> None:
        """Refuse to begin what the memory will not be enough for: better now than after hours of work.

        Parameters
        ----------
        mebibytes
            How much the operation will hold at its peak, in MiB.
        reason
            What for, such as "354,000 rows of 1,325 products".

        Raises
        ------
        BadParameterError
            When MEMORY_LIMIT is less; the message says how much would do.
        """
        limit = self.parameters.memory_limit
        if limit is None or mebibytes <= limit:
            return
        enough = 256 * math.ceil(mebibytes / 256)
        raise BadParameterError(
            f"MEMORY_LIMIT is {limit:,} MiB, and {reason} need about {mebibytes:,.0f}. Set `memory` of the task to "
            f"{enough} in models.yaml, or choose fewer rows (ROW_LIMIT) or features."
        )

    def note(self, text: str) -> None:
        """Say something that belongs into the report as well, such as rows left out."""
        self._notes.append(text)
        self.progress.say(text)

    def deliver(self, probabilities: ArrayLike, learned: Learned) -> None:
        """Check the predictions, score them where targets are known, and write them and the report.

        Parameters
        ----------
        probabilities
            That the target is above 0.5, or its expected value: shape (rows of the tournament,), each in [0, 1].
        learned
            For the report.

        Raises
        ------
        ModelFailureError
            When the predictions are worthless; nothing is written then.
        """
        table, parameters = self.tournament, self.parameters
        predictions, moved = checked(probabilities, len(table))
        if moved:
            self.note(f"moved {moved:,} predictions off 0 and 1, to within {CLOSEST_TO_EDGE:g}")
        validation = table.of_type("validation")
        scores = score(predictions[validation], table.targets[validation], table.era_numbers[validation])
        if learned.split is not None:
            self.progress.say(_in_words("split's validation part", learned.split))
        self.progress.say(_in_words("validation", scores))
        write_predictions(parameters.predicting, table.ids, predictions, parameters.inputs)
        self._report(learned, scores)
        self._done(f"predictions for {len(table):,} rows in {parameters.predicting}")

    def conclude(self, prepared: Learned, made: str) -> None:
        """End a preparation, which leaves files for later operations and no predictions, by writing its report.

        Parameters
        ----------
        prepared
            For the report.
        made
            What it left, in words, for the log.
        """
        self._report(prepared, None)
        self._done(made)

    def _report(self, learned: Learned, scores: Scores | None) -> None:
        parameters = self.parameters
        if parameters.reporting is None:
            return
        report = {
            "operation": parameters.operation,
            "rows": {
                "training": learned.training_rows,
                "held_out": learned.held_out_rows,
                "tournament": len(self.tournament),
            },
            "features": len(self.tournament.feature_names),
            "target": target_kind(self.training.targets).value,
            "seed": parameters.seed,
            "seconds": time.monotonic() - self._began,
            "peak_memory_mib": _peak_memory(),
            "validation": None if scores is None else scores._asdict(),
            "split": None if learned.split is None else learned.split._asdict(),
            "chosen": dict(learned.chosen),
            "notes": self._notes,
            "libraries": library_versions(learned.libraries),
        }
        write_report(parameters.reporting, report, parameters.inputs)

    def _done(self, left: str) -> None:
        self.progress.say(f"done in {duration(time.monotonic() - self._began)} and {_peak_memory():,} MiB: {left}")

    def _opened(self, table: Table) -> Table:
        eras = len(set(table.era_numbers.tolist()))
        self.progress.say(
            f"{table.path.name}: {len(table):,} rows, {eras:,} eras, "
            f"{len(table.feature_names):,} features ({table.feature_dtype})"
        )
        return table


def _peak_memory() -> int:
    """Look up the most memory this process has held at once, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


def _in_words(where: str, scores: Scores | None) -> str:
    if scores is None:
        return f"{where}: no row with a known target, so no score"
    parts = [f"{where} on {scores.rows:,} rows of {scores.eras:,} eras"]
    if scores.logloss is not None and scores.consistency is not None:
        parts.append(f"logloss {scores.logloss:.5f}, consistency {scores.consistency:.1%}")
    if scores.correlation is not None:
        parts.append(f"rank correlation {scores.correlation:+.4f}")
    return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]
