"""Every path of the data volume, in one place.

::

    <data>/downloads/<dataset>/<name>       verified raw files, shared by runs, never changed in place
    <data>/rounds/<round>/<fingerprint>/    one run's directory; runs with the same settings share it
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def fingerprint(settings: Mapping[str, object]) -> str:
    """Name the settings that decide a run's data: 12 hexadecimal digits, the same for the same settings."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class DataLayout:
    """The data volume, as seen by whoever holds ``root``."""

    root: Path

    def downloads(self, dataset: str) -> Path:
        """Folder of the verified raw files of a dataset, such as ``practice/v5.0``."""
        return self.all_downloads / dataset

    @property
    def all_downloads(self) -> Path:
        """Folder of the downloads of all datasets."""
        return self.root / "downloads"

    @property
    def rounds(self) -> Path:
        """Folder of all rounds."""
        return self.root / "rounds"

    @property
    def rounds_lock(self) -> Path:
        """Lock that a run shares while it notes itself, and that housekeeping has alone while it takes away."""
        return self.root / ".rounds.lock"

    def run(self, round_name: str, run_fingerprint: str) -> RunLayout:
        """Layout of the run of a round with these settings."""
        return RunLayout(self.rounds / round_name / run_fingerprint)


@dataclass(frozen=True)
class RunLayout:
    """One run's directory."""

    directory: Path

    @property
    def training(self) -> Path:
        """Training table."""
        return self.directory / "training.parquet"

    @property
    def tournament(self) -> Path:
        """Tournament table: validation, test and live rows."""
        return self.directory / "tournament.parquet"

    @property
    def targets(self) -> Path:
        """True targets of the tournament rows of a walk-forward run, which the models do not get to see."""
        return self.directory / "targets.parquet"

    def reference(self, name: str) -> Path:
        """Others' predictions of the tournament rows: ``example_predictions``, ``meta_model``, ``benchmark_models``."""
        return self.directory / f"{name}.parquet"

    @property
    def training_csv(self) -> Path:
        """Training table for images of 2018; made when one is run."""
        return self.directory / "training.csv"

    @property
    def tournament_csv(self) -> Path:
        """Tournament table for images of 2018; made when one is run."""
        return self.directory / "tournament.csv"

    def tables(self, form: str) -> tuple[Path, Path]:
        """Training and tournament table in a form, ``parquet`` or ``csv``."""
        return (self.training_csv, self.tournament_csv) if form == "csv" else (self.training, self.tournament)

    @property
    def run_facts(self) -> Path:
        """What the run is: source, round, version, features, target, sampling, seed."""
        return self.directory / "run.json"

    @property
    def leases(self) -> Path:
        """Folder of notes on which of Airflow's runs work here."""
        return self.directory / ".runs"

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
        """Report of a model or a preparation: JSON."""
        return self.reports_directory / f"{operation}.json"

    def evaluation(self, model: str) -> Path:
        """How a model, an ensemble or a reference did, era by era: JSON, by `evaluate`."""
        return self.reports_directory / "evaluation" / f"{model}.json"

    def submission(self, numerai_model: str) -> Path:
        """File that a model at Numerai gets: the live rows of somebody's predictions."""
        return self.directory / "submissions" / f"{numerai_model}.csv"

    def submission_record(self, numerai_model: str) -> Path:
        """Record of what became of it there: JSON."""
        return self.directory / "submissions" / f"{numerai_model}.json"

    def diagnosed(self, numerai_model: str) -> Path:
        """File that goes to Numerai's diagnostics: the validation rows of the same predictions."""
        return self.directory / "submissions" / "diagnostics" / f"{numerai_model}.csv"

    def diagnostics_record(self, numerai_model: str) -> Path:
        """Record of what they said: JSON."""
        return self.directory / "submissions" / "diagnostics" / f"{numerai_model}.json"

    @property
    def leaderboard(self) -> Path:
        """All of them, best first: JSON, by `evaluate`."""
        return self.directory / "leaderboard.json"

    @property
    def static_page(self) -> Path:
        """The same for people, with all that was found out: HTML, one file."""
        return self.directory / "leaderboard.html"

    def workspace(self, task: str) -> Path:
        """Folder that a task's container works in (``workspace.py``); gone when it is done."""
        return self.directory / ".work" / task

    def failure_log(self, task: str, try_number: int) -> Path:
        """Last lines of a container that failed: text."""
        return self.directory / "logs" / f"{task}.try-{try_number}.log"

    def image_note(self, task: str) -> Path:
        """Note on what a task's results were made with and on what it left: JSON, ``{"image": …, "files": […]}``."""
        return self.directory / "images" / f"{task}.json"


# The run's directory as a model's container sees it.
CONTAINER_RUN = RunLayout(Path("/data"))
