"""The task of an operation: its parameters, its tables, the directory of its fit, its log, and its outputs."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import batches, eras, outputs
from numerai_contract.exits import BadParameterError
from numerai_contract.feature_selection import most_correlated
from numerai_contract.plans import Sizes
from numerai_contract.predictions import CLIP_MARGIN, validate_probabilities, write_predictions
from numerai_contract.progress import Progress, duration
from numerai_contract.reports import library_versions, write_report
from numerai_contract.scores import score
from numerai_contract.tables import NO_ERA, JoinedTable, Table
from numerai_contract.targets import sample, target_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from numerai_contract.model_directory import ModelDirectory
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan
    from numerai_contract.scores import Scores
    from numerai_contract.tables import TableView
    from numerai_contract.targets import LabeledRows

# the parts of a target's report that are in that of several
_OF_TARGET = ("rows", "features", "target", "validation", "split", "final", "chosen", "notes", "seconds")
# the properties of a task that open a table
_TABLES = ("_training", "_first_training", "validation", "testing")


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
    table
        The table of the fit, for its features and the kind of its target; by default the training table, which an
        operation that learns on the validation table only need not read.
    """

    training_rows: int
    held_out_rows: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    libraries: Sequence[str] = ()
    split: Scores | None = None
    table: TableView | None = None


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
    model : ModelDirectory
        The directory of the fit; set by `numerai_contract.fitting.run`.
    """

    model: ModelDirectory

    def __init__(self, parameters: Parameters, progress: Progress | None = None) -> None:
        self.parameters = parameters
        self.progress = progress or Progress()
        self._joined: JoinedTable | None = None
        self._fit_table: TableView | None = None
        self._began = time.monotonic()
        self._notes: list[str] = []
        self._report: dict[str, Any] | None = None
        self._has_predicted = False

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
        if "MODEL" not in self.parameters and "PREDICTING" not in self.parameters and "STORING" in self.parameters:
            # a preprocessing task writes its files there, perhaps after hours
            outputs.check_directory(self.parameters.storing, "STORING")

    def for_final_fit(self) -> Task:
        """Return the same task with the rows of both tables as its training table."""
        final = Task(self.parameters, self.progress)
        final.model = self.model
        final._notes = self._notes
        final._joined = JoinedTable(self._training, self.validation)
        final.__dict__.update({name: self.__dict__[name] for name in _TABLES if name in self.__dict__})
        return final

    def check_targets(self, names: Sequence[str]) -> None:
        """Check the columns of targets in the tables of the fit, before hours of work."""
        for table in [self._training, *([self.validation] if self.has_validation else [])]:
            for name in names:
                table.with_target(name)

    def for_target(self, name: str) -> Task:
        """Return the same task for one of several targets: its column of the tables, and the directory of its fit.

        For a fit it has the tables of the fit; of a finished fit, the rows to predict with the features of that fit.
        """
        own = Task(self.parameters, self.progress)
        own.model = self.model.of_target(name)
        if own.model.is_complete:
            own.__dict__["testing"] = self.testing.with_features(own.model.feature_names)
            return own
        own.__dict__["_training"] = self._training.with_target(name)
        if self.has_validation:
            own.__dict__["validation"] = self.validation.with_target(name)
        if "TESTING" in self.parameters:
            own.__dict__["testing"] = self.testing
        return own

    @property
    def training(self) -> TableView:
        """The training table (TRAINING), validated; its features are not yet read. In the final fit, both tables.

        In the first fit, which the validation table scores, the targets of the last weeks before that table's eras are
        unknown, since they overlap with targets that score: those of EMBARGO weeks, of at most a tenth of the eras.
        """
        return self._first_training if self._joined is None else self._joined

    @cached_property
    def _first_training(self) -> Table:
        table = self._training
        if not self.has_validation:
            return table
        later = self.validation.era_numbers[~np.isnan(self.validation.targets)]
        later = later[later != NO_ERA]
        if not len(later):
            return table
        rows = eras.before(table.era_numbers, int(later.min()), self.parameters.embargo) & ~np.isnan(table.targets)
        if rows.any():
            self.note(
                f"the first fit does not learn from the {len(np.unique(table.era_numbers[rows])):,} eras before those "
                f"of {self.validation.path.name} ({np.count_nonzero(rows):,} rows; EMBARGO)"
            )
        return table.without_targets(rows)

    @cached_property
    def _training(self) -> Table:
        return self._log_table(Table(self.parameters.training))

    @property
    def fit_table(self) -> TableView:
        """The table of the fit: the training table, unless the summary of the fit has another one."""
        return self.training if self._fit_table is None else self._fit_table

    @property
    def is_final(self) -> bool:
        """Whether this is the final fit: `training` then has the rows of both tables."""
        return self._joined is not None

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation table."""
        return "VALIDATION" in self.parameters

    @cached_property
    def validation(self) -> Table:
        """The validation table (VALIDATION), validated; it has the features of the training table, in that order."""
        return self._log_table(Table(self.parameters.validation, feature_names=self._training.feature_names))

    @cached_property
    def testing(self) -> Table:
        """The table of the rows to predict (TESTING), validated; it has the features of the fit, in the same order.

        With a finished fit the training table is not read.
        """
        is_complete = "model" in self.__dict__ and self.model.is_complete
        names = self.model.feature_names if is_complete else self.fit_table.feature_names
        return self._log_table(Table(self.parameters.testing, feature_names=names))

    @property
    def sizes(self) -> Sizes:
        """The sizes of the tables, for the plan of a fit."""
        tables = [self._training, self.validation] if self.has_validation else [self._training]
        later = len(self.validation) if self.has_validation else 0
        value_bytes = max(table.feature_dtype.itemsize for table in tables)
        holds_int8 = all(table.holds_int8 for table in tables)
        return Sizes(len(self._training), later, len(self._training.feature_names), value_bytes, holds_int8)

    def follow(self, plan: Plan, rows: NDArray[np.bool_] | None = None) -> None:
        """Log the plan of a fit, and select its features for all tables.

        Parameters
        ----------
        plan
            The plan; in the final fit, which has the features of the first, it is not used.
        rows
            Marks of the training rows that select the features, shape (rows,); by default all.

        Raises
        ------
        BadParameterError
            When even the least plan needs more than MEMORY_LIMIT.
        """
        if self.is_final:
            return
        self.require_memory(plan.memory, f"{plan.rows:,} rows of {plan.features:,} features")
        limit = self.parameters.memory_limit
        allowed = "" if limit is None else f" of {limit:,}"
        self.progress.log(f"planned memory: {plan.memory:,.0f}{allowed} MiB")
        table = self._training
        available = len(table.feature_names)
        if plan.features < available:
            marks = np.ones(len(table), dtype=bool) if rows is None else rows
            with self.progress.step(f"selecting {plan.features:,} of {available:,} features"):
                self.use_features(most_correlated(table, marks, plan.features, self.progress.update))
            self.note(
                f"learning from {plan.features:,} of {available:,} features, those with the largest correlation with "
                "the target: all of them do not fit the time and the memory of the task"
            )

    def use_features(self, names: Sequence[str]) -> None:
        """Use only some of the features, in the given order, in all tables and in the record of the fit."""
        for name in _TABLES:
            if name in self.__dict__:
                self.__dict__[name] = self.__dict__[name].with_features(names)

    @property
    def tournament(self) -> Table:
        """The table of the rows to predict, by the name that operations with their own `run` know."""
        return self.testing

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

    def predict_rows(
        self,
        table: TableView,
        blocks: Iterable[tuple[NDArray[np.intp], NDArray[Any]]],
        model: Callable[[NDArray[Any]], NDArray[np.float64]],
        rows_at_a_time: int | None = None,
    ) -> NDArray[np.float64]:
        """Predict all rows of a table a batch at a time, as a step of the log.

        Parameters
        ----------
        table
            The table.
        blocks
            Positions of its rows and their features, such as ``table.batches()``.
        model
            From features, shape (rows of the batch, columns), to probabilities, shape (rows of the batch,).
        rows_at_a_time
            Maximum rows of a batch.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)
        """
        count = len(table)
        with self.progress.step(f"predicting {count:,} rows of {table.path.name}"):
            return batches.predict(blocks, count, model, report=self.progress.update, rows_at_a_time=rows_at_a_time)

    def summarize(self, summary: TrainingSummary) -> None:
        """Begin the report of the fit with the summary of the training."""
        self._fit_table = summary.table
        table = self.fit_table
        self._report = {
            "operation": self.parameters.operation,
            "rows": {"training": summary.training_rows, "held_out": summary.held_out_rows},
            "features": len(table.feature_names),
            "target": target_kind(table.targets).value,
            "seed": self.parameters.seed,
            "validation": None,
            "split": None if summary.split is None else summary.split._asdict(),
            "final": None,
            "chosen": dict(summary.chosen),
            "notes": self._notes,
            "libraries": library_versions(summary.libraries),
        }
        if summary.split is not None:
            self.progress.log(_format_scores("split's validation part", summary.split))

    def summarize_targets(self, reports: Mapping[str, Mapping[str, Any]], feature_names: Sequence[str]) -> None:
        """Begin the report of a fit of several targets.

        Parameters
        ----------
        reports
            Target → the report of its fit, the main target first: its selections and scores are in the report.
        feature_names
            The features that any of the fits uses.
        """
        main = next(iter(reports.values()))
        self._report = {
            **main,
            "features": len(feature_names),
            "validation": None,
            "notes": self._notes,
            "targets": {
                name: {part: report[part] for part in _OF_TARGET if part in report} for name, report in reports.items()
            },
        }

    def summarize_final(self, summary: TrainingSummary) -> None:
        """Add the summary of the final fit to the report."""
        self._fit_report["final"] = {"training_rows": summary.training_rows, "chosen": dict(summary.chosen)}

    def write_validation(self, probabilities: ArrayLike) -> None:
        """Validate, score and write the predictions of the validation table.

        Parameters
        ----------
        probabilities
            In [0, 1], shape (rows of the validation table,).

        Raises
        ------
        ModelFailureError
            When the predictions are worthless; then nothing is written.
        """
        table = self.validation
        predictions = self._validated(probabilities, table)
        self._score(predictions, table)
        self._fit_report["rows"]["validation"] = len(table)
        write_predictions(self.model.validation, table.ids, predictions, self.parameters.inputs)

    def write_testing(self, probabilities: ArrayLike) -> None:
        """Validate and write the predictions of the rows of TESTING; score them where there is no validation table.

        Raises
        ------
        ModelFailureError
            When the predictions are worthless; then nothing is written.
        """
        table, parameters = self.testing, self.parameters
        predictions = self._validated(probabilities, table)
        if self._report is not None and not self.has_validation:
            self._score(predictions, table)
        write_predictions(parameters.predicting, table.ids, predictions, parameters.inputs)
        self._has_predicted = True

    def write_fit_report(self) -> None:
        """Write the report of the fit into its directory."""
        self._measure(self._fit_report)
        write_report(self.model.report, self._fit_report, self.parameters.inputs)

    def finish(self, *, is_new: bool) -> None:
        """Write the report, where the run requests one, and log that the work is done.

        Parameters
        ----------
        is_new
            Whether this run has made the fit: otherwise the report is that of the predictions only.
        """
        parameters = self.parameters
        only_predicted: dict[str, Any] = {"operation": parameters.operation, "notes": self._notes}
        report = self._fit_report if is_new else only_predicted
        if "TESTING" in parameters and "testing" in self.__dict__:
            report.setdefault("rows", {})["testing"] = len(self.testing)
        self._measure(report)
        if parameters.reporting is not None:
            write_report(parameters.reporting, report, parameters.inputs)
        did = "fitted" if is_new else "used the finished fit"
        if self._has_predicted:
            did += f"; predictions for {len(self.testing):,} rows in {parameters.predicting}"
        self._log_done(did)

    def write_predictions(self, probabilities: ArrayLike, summary: TrainingSummary) -> None:
        """Write predictions and report of an operation that has its own `run` instead of `fit` and `load`.

        Parameters
        ----------
        probabilities
            That the target is above 0.5, or its expected value: shape (rows of TESTING,), each in [0, 1].
        summary
            For the report.

        Raises
        ------
        ModelFailureError
            When the predictions are worthless; then nothing is written.
        """
        self.summarize(summary)
        self.write_testing(probabilities)
        self.finish(is_new=True)

    @property
    def _fit_report(self) -> dict[str, Any]:
        assert self._report is not None, "summarize() comes first"  # noqa: S101
        return self._report

    def _validated(self, probabilities: ArrayLike, table: Table) -> NDArray[np.float64]:
        predictions, clipped = validate_probabilities(probabilities, len(table))
        if clipped:
            self.note(f"clipped {clipped:,} predictions to a distance of {CLIP_MARGIN:g} from 0 and 1")
        return predictions

    def _score(self, predictions: NDArray[np.float64], table: Table) -> None:
        validation = table.of_type("validation")
        scores = score(predictions[validation], table.targets[validation], table.era_numbers[validation])
        self._fit_report["validation"] = None if scores is None else scores._asdict()
        self.progress.log(_format_scores("validation", scores))

    def _measure(self, report: dict[str, Any]) -> None:
        report |= {"seconds": time.monotonic() - self._began, "peak_memory_mib": _peak_memory()}

    def _log_done(self, result: str) -> None:
        self.progress.log(f"done in {duration(time.monotonic() - self._began)} and {_peak_memory():,} MiB: {result}")

    def _log_table(self, table: Table) -> Table:
        self.progress.log(
            f"{table.path.name}: {len(table):,} rows, {len(np.unique(table.era_numbers)):,} eras, "
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
