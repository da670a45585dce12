"""Export of the best pipeline as a Python module, for further use."""

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

    from ._search_log import Candidate
    from ._training_data import TrainingData

_DOCSTRING = """\
The best pipeline that TPOT {version} found, with a cross-validated logloss of {loss:.5f} on {rows:,} rows.

It classifies target > 0.5 by {columns:,} columns: the features of the training table in its order, then {further}.
The seed was {seed}, the version of scikit-learn {sklearn}.
"""


def export(task: Task, data: TrainingData, best: Candidate) -> Path:
    """Write the pipeline, with its preprocessing, beside the report and into the directory of the fit; return its path.

    The path is that beside the report; both files have the same name.
    """
    parameters = task.parameters
    beside = parameters.reporting or parameters.storing / f"{parameters.operation}.json"
    path = beside.with_name(f"{beside.stem}_pipeline.py")
    preprocessing = [clone(step) for _, step in data.preprocessing.steps]
    whole = make_pipeline(*preprocessing, *(step for _, step in best.pipeline.steps))
    embeddings = ", ".join(data.tables.source.names)
    docstring = _DOCSTRING.format(
        version=metadata.version("tpot"),
        loss=best.loss,
        rows=len(data.labels),
        columns=data.features.shape[1],
        further=f"the coordinates of {embeddings}" if embeddings else "no others",
        seed=parameters.seed,
        sklearn=metadata.version("scikit-learn"),
    )
    text = source(whole, docstring)
    for destination in (path, task.model.path / path.name):
        with outputs.output(destination, rows=None, columns=(), inputs=parameters.inputs) as part:
            part.write_text(text, encoding="utf-8")
    return path
