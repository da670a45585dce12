"""The results that a run uses: a record for each task, and links for the people who look at the run's directory.

A run is a list of keys. ``tasks/<task>.json`` names the fit and the prediction that the task has in this run; every
later task reads exactly these. The links have the names under which a run's files have always been found:
``predictions/<model>.csv``, ``reports/<task>.json``, ``leaderboard.json``, ``tsne/…``, ``plots/…``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.manifests import SUFFIX, atomic_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numerai_pipeline.storage.layout import RunLayout


@dataclass(frozen=True)
class Fallback:
    """The predictions of an earlier fit, made before a new fit, for a round that closes before that is ready."""

    dataset: str
    fit: str
    prediction: str | None = None


@dataclass(frozen=True)
class TaskRecord:
    """The results of one task in one run.

    Attributes
    ----------
    task : str
        The task.
    image : str
        Full name of its image.
    dataset : str
        Key of the dataset of the fit.
    fit : str
        Key of the fit.
    prediction : str or None
        Key of the prediction of the live rows; None for a task without.
    fitted_at : str
        When the fit was finished, ISO 8601.
    fit_round : str
        The round of the run that made the fit.
    fallback : Fallback or None
        An earlier fit, where the run made one.
    """

    task: str
    image: str
    dataset: str
    fit: str
    prediction: str | None
    fitted_at: str
    fit_round: str
    fallback: Fallback | None = None


def read_record(layout: RunLayout, task: str) -> TaskRecord | None:
    """Read the record of a task in a run; None when the task has no result there.

    Raises
    ------
    BadInputError
        When the record is damaged.
    """
    file = layout.task_record(task)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        fallback = content.pop("fallback")
        return TaskRecord(**content, fallback=Fallback(**fallback) if fallback else None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"{file}: the record of `{task}` is damaged ({error}): clear `{task}` and run it again"
        raise BadInputError(msg) from error


def require_record(layout: RunLayout, task: str) -> TaskRecord:
    """Read the record of a task that must have a result.

    Raises
    ------
    BadInputError
        When it has none, or the record is damaged.
    """
    record = read_record(layout, task)
    if record is None:
        msg = f"`{task}` has no result in this run: clear `{task}` and run it again"
        raise BadInputError(msg)
    return record


def remove_record(layout: RunLayout, task: str) -> None:
    """Remove the record and the links of a task, before it runs again; its results stay."""
    layout.task_record(task).unlink(missing_ok=True)
    for link in _links_of(layout, task):
        link.unlink(missing_ok=True)


def write_record(layout: RunLayout, record: TaskRecord, results: list[Path], declared: Collection[str]) -> None:
    """Link the files of a task's results in the run's directory, then write the task's record.

    Parameters
    ----------
    layout : RunLayout
        The run's directory.
    record : TaskRecord
        The record.
    results : list of Path
        The directories of the results: of the fit, and of the prediction.
    declared : collection of str
        The files and folders of a result that are linked under their own names.
    """
    for result in results:
        for file in sorted(path for path in result.rglob("*") if path.is_file()):
            name = link_name(record.task, file.relative_to(result), declared)
            if name is not None:
                _link(file, layout.directory / name)
    with atomic_path(layout.task_record(record.task)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def link_name(task: str, file: Path, declared: Collection[str]) -> Path | None:
    """Return where a run's directory has a file of a result, relative to each; None for a file that it has not.

    A container can therefore not replace the run's own files, or those of another task.

    Parameters
    ----------
    task : str
        The task of the result.
    file : Path
        The file, relative to the result.
    declared : collection of str
        The files and folders that are linked under their own names.
    """
    first = file.parts[0]
    if len(file.parts) == 1:
        if first.startswith("report."):
            return Path("reports") / first.replace("report", task, 1)
        if first.startswith("validation.csv"):
            return Path("validation") / first.replace("validation", task, 1)
        if file.suffix == ".py":
            return Path("reports") / f"{task}_{first}"
    if first not in declared and str(file).removesuffix(SUFFIX) not in declared:
        return None
    return Path("reports") / file if first == "evaluation" else file


def _links_of(layout: RunLayout, task: str) -> Iterator[Path]:
    """Yield the links of a run's directory that lead to results of a task."""
    for folder, _, files in os.walk(layout.directory):
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() and f"/results/{task}/" in f"/{path.readlink()}":
                yield path


def _link(file: Path, link: Path) -> None:
    """Create or replace a relative link, so that it holds wherever the data volume is mounted."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(file, link.parent)
    temporary = link.with_name(f".{link.name}.{os.getpid()}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
