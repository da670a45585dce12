"""The paths of the data volume.

::

    <data>/downloads/<dataset>/<name>       verified raw files, shared by runs, never changed in place
    <data>/datasets/<key>/                  training and validation table, shared by runs, never changed
    <data>/results/<task>/<key>/            a finished result, shared by runs, never changed
    <data>/work/<task>/<key>/               workspace of the container that makes a result
    <data>/rounds/<round>/<run>/            one run's directory, with links to its results
    <data>/submissions/<source>/<round>/    records of the submissions of all runs, one for each model at Numerai
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REMOVED_PREFIX = ".removed-"
"""Name, below a root, of a directory that is being removed; housekeeping removes what a killed removal has not."""


def fingerprint(settings: Mapping[str, object]) -> str:
    """Hash the settings that determine a run's data: 12 hexadecimal digits, equal for equal settings."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class DataLayout:
    """The data volume below ``root``, as this process sees it."""

    root: Path

    def downloads(self, dataset: str) -> Path:
        """Folder of the verified raw files of a dataset, such as ``practice/v5.0``."""
        return self.downloads_root / dataset

    @property
    def downloads_root(self) -> Path:
        """Folder of the downloads of all datasets."""
        return self.root / "downloads"

    def dataset(self, key: str) -> DatasetLayout:
        """Layout of the dataset with this key."""
        return DatasetLayout(self.datasets_root / key)

    @property
    def datasets_root(self) -> Path:
        """Folder of all datasets."""
        return self.root / "datasets"

    def result(self, task: str, key: str) -> Path:
        """Folder of a finished result of a task."""
        return self.results_root / task / key

    @property
    def results_root(self) -> Path:
        """Folder of the results of all tasks."""
        return self.root / "results"

    @property
    def rounds(self) -> Path:
        """Folder of all rounds."""
        return self.root / "rounds"

    @property
    def submissions_root(self) -> Path:
        """Folder of the records of all submissions."""
        return self.root / "submissions"

    def submission_slot(self, source: str, round_number: int, account_model: str) -> Path:
        """Record of the submission that a model at Numerai has for a round: JSON.

        Parameters
        ----------
        source : str
            ``numerai`` or ``practice``.
        round_number : int
        account_model : str
            Id of the model, by the server. It is hashed if it is not the name of a file.
        """
        is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", account_model)
        name = account_model if is_name else fingerprint({"account_model": account_model})
        return self.submissions_root / source / str(round_number) / f"{name}.json"

    def work(self, task: str, key: str) -> Path:
        """Workspace of the container that makes a result (``workspace.py``); removed at its end."""
        return self.work_root / task / key

    @property
    def work_root(self) -> Path:
        """Folder of all workspaces."""
        return self.root / "work"

    def run(self, round_name: str, run_fingerprint: str) -> RunLayout:
        """Layout of the run of a round with this fingerprint, which is of its DAG and its run id."""
        return RunLayout(self.rounds / round_name / run_fingerprint)


@dataclass(frozen=True)
class DatasetLayout:
    """The directory of a dataset; its name is the dataset's key."""

    directory: Path

    @property
    def training(self) -> Path:
        """Training table."""
        return self.directory / "training.parquet"

    @property
    def validation(self) -> Path:
        """Validation table: later rows than the training table's."""
        return self.directory / "validation.parquet"

    @property
    def metadata(self) -> Path:
        """Metadata of both tables: JSON."""
        return self.directory / "dataset.json"

    @property
    def training_csv(self) -> Path:
        """Training table for images of 2018; written when a task needs it."""
        return self.directory / "training.csv"


@dataclass(frozen=True)
class RunLayout:
    """One run's directory."""

    directory: Path

    @property
    def data(self) -> DataLayout:
        """The data volume that the directory is on."""
        return DataLayout(self.directory.parents[2])

    @property
    def training(self) -> Path:
        """Training table of a directory of an earlier release; else the dataset has it."""
        return self.directory / "training.parquet"

    @property
    def tournament(self) -> Path:
        """Validation and live rows in one table, for images that keep no model; written when a task needs it."""
        return self.directory / "tournament.parquet"

    @property
    def live(self) -> Path:
        """Live table: the rows to predict; their targets are unknown."""
        return self.directory / "live.parquet"

    @property
    def targets(self) -> Path:
        """True targets of the live rows of a walk-forward run, hidden from the models."""
        return self.directory / "targets.parquet"

    @property
    def tournament_csv(self) -> Path:
        """Tournament table for images of 2018; written when a task needs it."""
        return self.directory / "tournament.csv"

    @property
    def run_metadata(self) -> Path:
        """Metadata of the run: source, round, version, features, target, sampling, seed."""
        return self.directory / "run.json"

    @property
    def tasks_directory(self) -> Path:
        """Folder of the records of the run's tasks."""
        return self.directory / "tasks"

    def task_record(self, task: str) -> Path:
        """Record of the results that a task has in this run (``task_records.py``): JSON."""
        return self.tasks_directory / f"{task}.json"

    def validation_predictions(self, model: str) -> Path:
        """Predictions of the validation table by a model or an ensemble: CSV with the header ``id,prediction``."""
        return self.directory / "validation" / f"{model}.csv"

    @property
    def predictions_directory(self) -> Path:
        """Folder of all predictions."""
        return self.directory / "predictions"

    @property
    def reports_directory(self) -> Path:
        """Folder of all reports."""
        return self.directory / "reports"

    def predictions(self, model: str) -> Path:
        """Predictions of a model: CSV with the header ``id,prediction``."""
        return self.predictions_directory / f"{model}.csv"

    def report(self, operation: str) -> Path:
        """Report of a task: JSON."""
        return self.reports_directory / f"{operation}.json"

    def evaluation(self, model: str) -> Path:
        """Scores of a model, an ensemble or a reference by era: JSON, by `evaluate`."""
        return self.reports_directory / "evaluation" / f"{model}.json"

    def submission(self, numerai_model: str) -> Path:
        """File to upload for a model at Numerai: the live rows of a model's or an ensemble's predictions."""
        return self.directory / "submissions" / f"{numerai_model}.csv"

    def submission_record(self, numerai_model: str) -> Path:
        """Copy of the record of the submission (:meth:`DataLayout.submission_slot`), for people: JSON."""
        return self.directory / "submissions" / f"{numerai_model}.json"

    def diagnostics_csv(self, numerai_model: str) -> Path:
        """File to upload to Numerai's diagnostics: the validation rows of the same predictions."""
        return self.directory / "submissions" / "diagnostics" / f"{numerai_model}.csv"

    def diagnostics_record(self, numerai_model: str) -> Path:
        """Record of the diagnostics: JSON."""
        return self.directory / "submissions" / "diagnostics" / f"{numerai_model}.json"

    @property
    def leaderboard(self) -> Path:
        """Scores of all models, best first: JSON, by `evaluate`."""
        return self.directory / "leaderboard.json"

    @property
    def static_page(self) -> Path:
        """Leaderboard page: HTML, one file."""
        return self.directory / "leaderboard.html"

    def failure_log(self, task: str, try_number: int) -> Path:
        """Last log lines of a failed container: text."""
        return self.directory / "logs" / f"{task}.try-{try_number}.log"

    def image_record(self, task: str) -> Path:
        """Record of the image and the outputs of a task: JSON, ``{"image": …, "files": […]}``."""
        return self.directory / "images" / f"{task}.json"
