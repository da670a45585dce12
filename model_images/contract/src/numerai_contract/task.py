"""What an operation is handed: its parameters, its tables, a voice, and a place for its results."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numerai_contract import outputs
from numerai_contract.predictions import CLOSEST_TO_EDGE, checked, write_predictions
from numerai_contract.progress import Progress, duration
from numerai_contract.reports import library_versions, write_report
from numerai_contract.scores import Scores, score
from numerai_contract.tables import Table
from numerai_contract.targets import target_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from numerai_contract.parameters import Parameters


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
    """

    training_rows: int
    held_out_rows: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    libraries: Sequence[str] = ()


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

    @cached_property
    def training(self) -> Table:
        """The training table (TRAINING), checked; its features are not yet read."""
        return self._opened(Table(self.parameters.training))

    @cached_property
    def tournament(self) -> Table:
        """The tournament table (TESTING), checked; its features are those of the training table, in the same order."""
        return self._opened(Table(self.parameters.testing, feature_names=self.training.feature_names))

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
        self.progress.say(_in_words(scores))
        write_predictions(parameters.predicting, table.ids, predictions, parameters.inputs)
        if parameters.reporting is not None:
            report = {
                "operation": parameters.operation,
                "rows": {
                    "training": learned.training_rows,
                    "held_out": learned.held_out_rows,
                    "tournament": len(table),
                },
                "features": len(table.feature_names),
                "target": target_kind(self.training.targets).value,
                "seed": parameters.seed,
                "seconds": time.monotonic() - self._began,
                "peak_memory_mib": _peak_memory(),
                "validation": None if scores is None else scores._asdict(),
                "chosen": dict(learned.chosen),
                "notes": self._notes,
                "libraries": library_versions(learned.libraries),
            }
            write_report(parameters.reporting, report, parameters.inputs)
        self.progress.say(
            f"done in {duration(time.monotonic() - self._began)} and {_peak_memory():,} MiB: "
            f"predictions for {len(table):,} rows in {parameters.predicting}"
        )

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


def _in_words(scores: Scores | None) -> str:
    if scores is None:
        return "validation: no row with a known target, so no score"
    parts = [f"validation on {scores.rows:,} rows of {scores.eras:,} eras"]
    if scores.logloss is not None and scores.consistency is not None:
        parts.append(f"logloss {scores.logloss:.5f}, consistency {scores.consistency:.1%}")
    if scores.correlation is not None:
        parts.append(f"rank correlation {scores.correlation:+.4f}")
    return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]
