"""A model whose prediction is a function of a quadratic form of a row's features and coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_contract import saved_state
from numerai_contract.imputation import Medians
from numerai_contract.split_tables import FeatureSource

from ._quadratic import QuadraticForm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    from ._quadratic import Matrix

    # from the form's values, shape (rows,), and the model's own arrays to probabilities, shape (rows,)
    Link = Callable[..., NDArray[np.float64]]

_MEDIANS, _PRODUCTS, _LINEAR = "medians", "products", "linear"


class QuadraticModel:
    """A quadratic form, and the link from its values to probabilities.

    Parameters
    ----------
    source
        The features and coordinates of a row.
    medians
        Replace missing values.
    form
        Of the imputed values.
    link
        Called with the form's values and, by name, `arrays`.
    arrays
        Further arrays of the link; they are saved with the model.
    """

    def __init__(
        self, source: FeatureSource, medians: Medians, form: QuadraticForm, link: Link, **arrays: NDArray[np.float64]
    ) -> None:
        self._source, self._medians, self._form = source, medians, form
        self._link, self._arrays = link, arrays

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, self._source.batches(table), self.predict_block)

    def predict_block(self, block: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, columns), whose missing values (NaN) are replaced in place; shape (rows,)."""
        return self.predict_imputed(self._medians.fill(block))

    def predict_imputed(self, matrix: Matrix) -> NDArray[np.float64]:
        """Predict rows, shape (rows, columns), without missing values; shape (rows,)."""
        return self._link(self._form.compute(matrix), **self._arrays)

    def save(self, directory: Path) -> None:
        """Save the arrays and the names of the embeddings."""
        arrays: dict[str, NDArray[Any]] = {
            _MEDIANS: self._medians.values,
            _PRODUCTS: self._form.products,
            _LINEAR: self._form.linear,
            **self._arrays,
        }
        saved_state.save(directory, arrays, {"constant": self._form.constant, "embeddings": self._source.names})

    @classmethod
    def load(cls, task: Task, directory: Path, link: Link) -> QuadraticModel:
        """Load what `save` has saved."""
        arrays, settings = saved_state.load(directory)
        medians = Medians.from_values(arrays.pop(_MEDIANS))
        form = QuadraticForm(arrays.pop(_PRODUCTS), arrays.pop(_LINEAR), settings["constant"])
        return cls(FeatureSource.from_names(task, settings["embeddings"]), medians, form, link, **arrays)
