"""The task of an operation: its parameters, its tables, its log, and its outputs."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numerai_contract import outputs
from numerai_contract.exits import BadParameterError
from numerai_contract.predictions import CLIP_MARGIN, validate_probabilities, write_predictions
from numerai_contract.progress import Progress, duration
from numerai_contract.reports import library_versions, write_report
from numerai_contract.scores import score
from numerai_contract.tables import Table
from numerai_contract.targets import sample, target_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from numerai_contract.parameters import Parameters
    from numerai_contract.scores import Scores
    from numerai_contract.targets import LabeledRows


@dataclass(frozen=True)
class TrainingSummary:
    """The training of a model, for the report.

    Attributes
    ----------
    training_rows, held_out_rows
        Number of training rows, and of rows held out for early stopping.
    chosen
        Hyperparameters, the number of trees: everything needed to compare two runs.
    libraries
        Distributions whose versions affect the result.
    split
        Scores on the validation part of the split, for a model trained on one.
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
        The parameters of the operation.
    progress
        The progress log; by default on standard output.

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
        """Validate the parameters and the output paths, before the work begins.

        Raises
        ------
        BadParameterError
            With the parameter, its value and the allowed values.
        """
        self.parameters.check()
        for name in ("PREDICTING", "REPORTING"):
            if name in self.parameters:
                outputs.check_writable(self.parameters.get_path(name), name)
        if "PREDICTING" not in self.parameters and "STORING" in self.parameters:
            # a preprocessing task writes its files there, perhaps after hours
            outputs.check_directory(self.parameters.storing, "STORING")

    @cached_property
    def training(self) -> Table:
        """The training table (TRAINING), validated; its features are not yet read."""
        return self._log_table(Table(self.parameters.training))

    @cached_property
    def tournament(self) -> Table:
        """The tournament table (TESTING), validated; it has the features of the training table, in the same order."""
        return self._log_table(Table(self.parameters.testing, feature_names=self.training.feature_names))

    def require_memory(self, mebibytes: float, reason: str) -> None:
        """Check that the memory is large enough, before hours of work.

        Parameters
        ----------
        mebibytes
            The operation's peak memory, in MiB.
        reason
            Its cause, such as "354,000 rows of 1,325 products".

        Raises
        ------
        BadParameterError
            When MEMORY_LIMIT is less; the message has a sufficient value.
        """
        limit = self.parameters.memory_limit
        if limit is None or mebibytes <= limit:
            return
        sufficient = 256 * math.ceil(mebibytes / 256)
        raise BadParameterError(
            f"MEMORY_LIMIT is {limit:,} MiB, and {reason} need about {mebibytes:,.0f}. Set `memory` of the task to "
            f"{sufficient} in models.yaml, or use fewer rows (ROW_LIMIT) or features."
        )

    def sample_rows(self, labeled: LabeledRows, row_limit: int) -> LabeledRows:
        """Sample labeled rows of the training table down to ROW_LIMIT, and note it; see `targets.sample`."""
        drawn = sample(labeled, self.training.era_numbers, row_limit, seed=self.parameters.seed)
        used, available = len(drawn.labels), len(labeled.labels)
        if used < available:
            self.note(f"learning from {used:,} of {available:,} rows, drawn evenly from all eras (ROW_LIMIT)")
        return drawn

    def note(self, text: str) -> None:
        """Log a line and add it to the report, such as a number of rows left out."""
        self._notes.append(text)
        self.progress.log(text)

    def write_predictions(self, probabilities: ArrayLike, summary: TrainingSummary) -> None:
        """Validate the predictions, score them where targets are known, and write them and the report.

        Parameters
        ----------
        probabilities
            That the target is above 0.5, or its expected value: shape (rows of the tournament,), each in [0, 1].
        summary
            For the report.

        Raises
        ------
        ModelFailureError
            When the predictions are worthless; then nothing is written.
        """
        table, parameters = self.tournament, self.parameters
        predictions, clipped = validate_probabilities(probabilities, len(table))
        if clipped:
            self.note(f"clipped {clipped:,} predictions to a distance of {CLIP_MARGIN:g} from 0 and 1")
        validation = table.of_type("validation")
        scores = score(predictions[validation], table.targets[validation], table.era_numbers[validation])
        if summary.split is not None:
            self.progress.log(_format_scores("split's validation part", summary.split))
        self.progress.log(_format_scores("validation", scores))
        write_predictions(parameters.predicting, table.ids, predictions, parameters.inputs)
        self._write_report(summary, scores)
        self._log_done(f"predictions for {len(table):,} rows in {parameters.predicting}")

    def write_report(self, summary: TrainingSummary, description: str) -> None:
        """Write the report of an operation that has other outputs than predictions.

        Parameters
        ----------
        summary
            For the report.
        description
            Its outputs in a sentence, for the log.
        """
        self._write_report(summary, None)
        self._log_done(description)

    def _write_report(self, summary: TrainingSummary, scores: Scores | None) -> None:
        parameters = self.parameters
        if parameters.reporting is None:
            return
        report = {
            "operation": parameters.operation,
            "rows": {
                "training": summary.training_rows,
                "held_out": summary.held_out_rows,
                "tournament": len(self.tournament),
            },
            "features": len(self.tournament.feature_names),
            "target": target_kind(self.training.targets).value,
            "seed": parameters.seed,
            "seconds": time.monotonic() - self._began,
            "peak_memory_mib": _peak_memory(),
            "validation": None if scores is None else scores._asdict(),
            "split": None if summary.split is None else summary.split._asdict(),
            "chosen": dict(summary.chosen),
            "notes": self._notes,
            "libraries": library_versions(summary.libraries),
        }
        write_report(parameters.reporting, report, parameters.inputs)

    def _log_done(self, result: str) -> None:
        self.progress.log(f"done in {duration(time.monotonic() - self._began)} and {_peak_memory():,} MiB: {result}")

    def _log_table(self, table: Table) -> Table:
        eras = len(set(table.era_numbers.tolist()))
        self.progress.log(
            f"{table.path.name}: {len(table):,} rows, {eras:,} eras, "
            f"{len(table.feature_names):,} features ({table.feature_dtype})"
        )
        return table


def _peak_memory() -> int:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


def _format_scores(where: str, scores: Scores | None) -> str:
    if scores is None:
        return f"{where}: no row has a known target, so there is no score"
    parts = [f"{where} on {scores.rows:,} rows of {scores.eras:,} eras"]
    if scores.logloss is not None and scores.consistency is not None:
        parts.append(f"logloss {scores.logloss:.5f}, consistency {scores.consistency:.1%}")
    if scores.correlation is not None:
        parts.append(f"rank correlation {scores.correlation:+.4f}")
    return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]
