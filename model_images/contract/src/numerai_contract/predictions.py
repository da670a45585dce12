"""The predictions of a model: checked as Numerai would check them, and written the same way every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from numerai_contract import outputs
from numerai_contract.exits import ModelFailureError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

HEADER = ("id", "prediction")
# the outermost predictions: nearer to 0 or 1 a single wrong row ruins a mean logloss
CLOSEST_TO_EDGE = 1e-6
# predictions that spread less than this say the same of every row
SMALLEST_SPREAD = 1e-6
# decimals in the file: far finer than any model knows, coarser than the noise of summing in another order
_DECIMALS = 9
_NUMBER = pa.decimal128(_DECIMALS + 1, _DECIMALS)


def checked(probabilities: ArrayLike, rows: int) -> tuple[NDArray[np.float64], int]:
    """Check a model's probabilities and move the outermost off 0 and 1.

    Parameters
    ----------
    probabilities
        Shape (rows,), each in [0, 1].
    rows
        How many there must be.

    Returns
    -------
    probabilities : numpy.ndarray of float64, shape (rows,)
        Strictly between 0 and 1.
    moved : int
        How many were nearer to 0 or 1 than `CLOSEST_TO_EDGE` and were moved to it.

    Raises
    ------
    ModelFailureError
        When they are too many or too few, not numbers, outside [0, 1], or (almost) the same for every row.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (rows,):
        raise ModelFailureError(
            f"the model returned predictions of shape {values.shape} for {rows:,} rows: there must be one a row."
        )
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ModelFailureError(
            f"the model predicted {values[wrong[0]]:g} for row {wrong[0] + 1:,}, and nothing in [0, 1] for "
            f"{len(wrong):,} of {rows:,} rows. No predictions were written."
        )
    if rows > 1 and values.std() < SMALLEST_SPREAD:
        raise ModelFailureError(
            f"the model predicts {values[0]:.6f} for every row (standard deviation {values.std():.1e}): it has learned "
            "nothing. No predictions were written. Give it more rows, features or time, or other parameters."
        )
    clipped = values.clip(CLOSEST_TO_EDGE, 1 - CLOSEST_TO_EDGE)
    return clipped, int(np.count_nonzero(clipped != values))


def write_predictions(path: Path, ids: pa.ChunkedArray, probabilities: NDArray[np.float64], inputs: str | None) -> None:
    """Write checked predictions as CSV with the header ``id,prediction``, in the order of `ids`.

    The same predictions give the same bytes.

    Parameters
    ----------
    path
        Where to.
    ids
        Shape (rows,).
    probabilities
        Strictly between 0 and 1, shape (rows,).
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    table = pa.table({HEADER[0]: ids, HEADER[1]: pa.array(probabilities).cast(_NUMBER).cast(pa.string())})
    # the other style puts every text into quotes, where one needs them
    plain = not pc.any(pc.match_substring_regex(ids, '[,"\r\n]')).as_py()
    style = pa_csv.WriteOptions(include_header=False, quoting_style="none" if plain else "needed")
    with (
        outputs.output(path, rows=len(probabilities), columns=HEADER, inputs=inputs) as part,
        part.open("wb") as stream,
    ):
        stream.write(f"{','.join(HEADER)}\n".encode())
        # by native code: whoever was asked to stop has moments for millions of rows
        pa_csv.write_csv(table, stream, style)
