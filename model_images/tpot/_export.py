"""The best pipeline left as a Python module in the run's directory, for whoever wants to go on from it."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from numerai_contract import outputs

from ._pipelines import source

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.task import Task

    from ._found import Candidate
    from ._lesson import Lesson

_ABOUT = """\
The best pipeline that TPOT {version} found, with a cross-validated logloss of {loss:.5f} on {rows:,} rows.

It classifies target > 0.5 by {columns:,} columns: the features of the training table in its order, then {maps}.
The seed was {seed}; made with scikit-learn {sklearn}.
"""


def export(task: Task, lesson: Lesson, best: Candidate) -> Path:
    """Write the pipeline, with what comes before it, beside the report; return where it is."""
    parameters = task.parameters
    beside = parameters.reporting or parameters.storing / f"{parameters.operation}.json"
    path = beside.with_name(f"{beside.stem}_pipeline.py")
    preparation = [clone(step) for _, step in lesson.preparation.steps]
    whole = make_pipeline(*preparation, *(step for _, step in best.pipeline.steps))
    maps = ", ".join(embedding.name for embedding in lesson.tables.embeddings)
    about = _ABOUT.format(
        version=metadata.version("tpot"),
        loss=best.loss,
        rows=len(lesson.labels),
        columns=lesson.features.shape[1],
        maps=f"the coordinates of {maps}" if maps else "nothing else",
        seed=parameters.seed,
        sklearn=metadata.version("scikit-learn"),
    )
    with outputs.output(path, rows=None, columns=(), inputs=parameters.inputs) as part:
        part.write_text(source(whole, about), encoding="utf-8")
    return path
