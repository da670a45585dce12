"""The life of a model: fit, predict the validation table, fit again on all known rows, save, and predict live rows.

An operation is a module with functions:

``fit(task, earlier=None) -> Fitted``
    Learn on ``task.training``. The *final fit* calls it a second time with the result of the first as `earlier`:
    ``task.training`` then has the rows of both tables, ``task.is_final`` is True, and what the first fit has selected
    (number of trees, penalty, pipeline) is used again instead of being searched.
``load(task, directory) -> Model``
    Load what ``Model.save(directory)`` has saved. The predictions of live rows are always made by a loaded model, so
    that the run that fits and every later run give the same bytes.

An operation without predictions (a preprocessing or post-processing task) has instead:

``make(task) -> TrainingSummary``
    Write the files of the fit into ``task.model.path``.
``apply(task)`` (optional)
    Write the files about the rows of TESTING, with the files of the fit.

``RESUMES = True`` keeps the finished files of an earlier attempt in the directory for `fit` or `make`.

With TARGETS an operation with `fit` learns the main target and each of these, one after the other: each fit has its own
directory in MODEL, and an attempt uses the fits that an earlier one with the same INPUTS has finished. All of them have
the same parameters and seed. The predictions are the mean of the ranks, see `numerai_contract.blending`.

A complete MODEL is only loaded: nothing is learned, and neither TRAINING nor VALIDATION is read. Without MODEL a
temporary directory takes its place (`make` needs MODEL). Without VALIDATION there is one fit, on TRAINING.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numerai_contract import outputs
from numerai_contract.blending import blend
from numerai_contract.exits import BadParameterError
from numerai_contract.model_directory import ModelDirectory
from numerai_contract.predictions import read_predictions
from numerai_contract.tables import TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task, TrainingSummary


class Model(Protocol):
    """A trained model."""

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table, in its order; in [0, 1], shape (rows,)."""

    def save(self, directory: Path) -> None:
        """Save into an empty directory, in the library's own format, all that `load` needs."""


class Fitted(NamedTuple):
    """The result of a fit.

    Attributes
    ----------
    model : Model
    summary : TrainingSummary
        For the report.
    choice : object
        What the final fit uses again; each operation has its own kind.
    is_last : bool
        Whether the final fit is left out, as after a stop request: live rows are then predicted by this model.
    """

    model: Model
    summary: TrainingSummary
    choice: Any = None
    is_last: bool = False


def run(task: Task, module: ModuleType) -> None:
    """Run an operation: the fit unless MODEL is complete, then the predictions of TESTING where it is set.

    Raises
    ------
    BadParameterError
        Before the work, when MODEL or an output path is not usable.
    BadDataError
        When MODEL is complete and was changed, or is the fit of another operation.
    """
    _check_paths(task, module)
    with _model_directory(task) as directory:
        task.model = directory
        is_new = not directory.is_complete
        if is_new:
            _fit(task, module)
        else:
            task.progress.log(f"using the finished fit in {directory.path}")
            directory.verify(task.parameters.operation)
        if "TESTING" in task.parameters:
            _predict(task, module)
        task.finish(is_new=is_new)


def _check_paths(task: Task, module: ModuleType) -> None:
    """Check the directory of the fit and the outputs, before hours of work."""
    parameters = task.parameters
    if "MODEL" in parameters:
        for name in ("TRAINING", "VALIDATION", "TESTING", "STORING"):
            path = parameters.get_path(name).resolve() if name in parameters else None
            model = parameters.model.resolve()
            if path is not None and (path == model or model in path.parents):
                raise BadParameterError(
                    f"MODEL is {str(parameters.model)!r}, which contains {name} ({path}): a fit removes all other "
                    "files of its directory. Set MODEL to a directory that has only the fit."
                )
        ModelDirectory(parameters.model).check()
    elif hasattr(module, "make"):
        raise BadParameterError(
            f"MODEL is not set: the operation {parameters.operation!r} writes its files into this directory. Set MODEL "
            "to a new directory, such as /data/model."
        )
    if hasattr(module, "load") and ("TESTING" in parameters or "MODEL" not in parameters):
        _ = (parameters.testing, parameters.predicting)
    if hasattr(module, "apply") and "TESTING" in parameters:
        outputs.check_directory(parameters.storing, "STORING")


@contextlib.contextmanager
def _model_directory(task: Task) -> Iterator[ModelDirectory]:
    if "MODEL" in task.parameters:
        yield ModelDirectory(task.parameters.model)
        return
    # removed in any case: TemporaryDirectory ignores errors only since Python 3.10
    folder = Path(tempfile.mkdtemp(prefix="model_"))
    try:
        yield ModelDirectory(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fit(task: Task, module: ModuleType) -> None:
    if task.parameters.targets:
        _fit_targets(task, module, (TARGET, *task.parameters.targets))
        return
    task.model.begin(keep=getattr(module, "RESUMES", False))
    _fit_one(task, module)


def _fit_targets(task: Task, module: ModuleType, names: Sequence[str]) -> None:
    """Make the fit of each target that an earlier attempt has not finished, and blend their predictions."""
    directory, parameters = task.model, task.parameters
    directory.begin(keep=True)
    _open_tables(task)
    task.check_targets(names)
    for number, name in enumerate(names, start=1):
        own, which = directory.of_target(name), f"target {number:,} of {len(names):,} ({name})"
        if own.is_fit_of(parameters.operation, parameters.inputs, has_validation=task.has_validation):
            task.progress.log(f"{which}: an earlier attempt has finished its fit")
            continue
        task.progress.log(which)
        own.begin(keep=False)
        _fit_one(task.for_target(name), module)
        # some libraries refer to their models in cycles: the next fit needs the memory of this one
        gc.collect()
    fits = {name: directory.of_target(name) for name in names}
    used = {feature for own in fits.values() for feature in own.feature_names}
    features = [feature for feature in task.training.feature_names if feature in used]
    task.note(f"predictions are the mean of the ranks, within each era, of {len(names):,} fits: {', '.join(names)}")
    reports = {name: json.loads(own.report.read_text(encoding="utf-8")) for name, own in fits.items()}
    task.summarize_targets(reports, features)
    if task.has_validation:
        predictions = (read_predictions(own.validation) for own in fits.values())
        task.write_validation(blend(predictions, task.validation.era_numbers))
    task.write_fit_report()
    directory.complete(parameters.operation, parameters.inputs, features, names)


def _open_tables(task: Task) -> None:
    """Open the other tables before the work: an invalid one must not be found after hours."""
    if task.has_validation:
        _ = task.validation
    if "TESTING" in task.parameters:
        _ = task.testing


def _fit_one(task: Task, module: ModuleType) -> None:
    directory = task.model
    if hasattr(module, "make"):
        task.summarize(module.make(task))
    else:
        _open_tables(task)
        fitted: Fitted = module.fit(task)
        task.summarize(fitted.summary)
        if task.has_validation:
            task.write_validation(fitted.model.predict(task, task.validation))
            if not fitted.is_last:
                fitted = _final_fit(task, module, fitted)
        fitted.model.save(directory.saved)
    task.write_fit_report()
    directory.complete(task.parameters.operation, task.parameters.inputs, task.fit_table.feature_names)


def _final_fit(task: Task, module: ModuleType, first: Fitted) -> Fitted:
    final = task.for_final_fit()
    task.progress.log(f"final fit: learning from all {len(final.training):,} rows of both tables")
    fitted: Fitted = module.fit(final, first)
    task.summarize_final(fitted.summary)
    return fitted


def _predict(task: Task, module: ModuleType) -> None:
    if not hasattr(module, "load"):
        if hasattr(module, "apply"):
            module.apply(task)
        return
    names = task.model.targets
    if names:
        predictions = (_predict_one(task.for_target(name), module) for name in names)
        task.write_testing(blend(predictions, task.testing.era_numbers))
    else:
        task.write_testing(_predict_one(task, module))


def _predict_one(task: Task, module: ModuleType) -> NDArray[np.float64]:
    model: Model = module.load(task, task.model.saved)
    return model.predict(task, task.testing)
