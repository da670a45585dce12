"""The predictions of a model: validated as Numerai validates them, and written in a deterministic format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from numerai_contract import outputs
from numerai_contract.exits import ContractError, ModelFailureError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

HEADER = ("id", "prediction")
# the least distance of a prediction from 0 and 1: closer, a single wrong row ruins a mean logloss
CLIP_MARGIN = 1e-6
# predictions with a smaller standard deviation are constant
MIN_STD = 1e-6
# decimals in the file: finer than the precision of any model, coarser than the rounding of another summation order
_DECIMALS = 9
_NUMBER = pa.decimal128(_DECIMALS + 1, _DECIMALS)


def validate_probabilities(probabilities: ArrayLike, rows: int) -> tuple[NDArray[np.float64], int]:
    """Validate a model's probabilities and clip them away from 0 and 1.

    Parameters
    ----------
    probabilities
        Shape (rows,), each in [0, 1].
    rows
        The required number.

    Returns
    -------
    probabilities : numpy.ndarray of float64, shape (rows,)
        Strictly between 0 and 1.
    clipped : int
        Number of probabilities closer to 0 or 1 than `CLIP_MARGIN`, which were set to it.

    Raises
    ------
    ContractError
        When their number is wrong.
    ModelFailureError
        When they are not numbers, outside [0, 1], or (almost) the same for every row.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (rows,):
        raise ContractError(
            f"the model returned predictions of shape {values.shape} for {rows:,} rows: one per row is required."
        )
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ModelFailureError(
            f"the model predicted {values[wrong[0]]:g} for row {wrong[0] + 1:,}; {len(wrong):,} of {rows:,} rows "
            "have no prediction in [0, 1]. No predictions were written."
        )
    if rows > 1 and values.std() < MIN_STD:
        raise ModelFailureError(
            f"the model predicts {values[0]:.6f} for every row (standard deviation {values.std():.1e}): it has learned "
            "nothing. No predictions were written. Give it more rows, features or time, or other parameters."
        )
    clipped = values.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)
    return clipped, int(np.count_nonzero(clipped != values))


def read_predictions(path: Path) -> NDArray[np.float64]:
    """Read the predictions that `write_predictions` has written, in the order of the file; shape (rows,)."""
    options = pa_csv.ConvertOptions(include_columns=[HEADER[1]], column_types={HEADER[1]: pa.float64()})
    values: NDArray[np.float64] = pa_csv.read_csv(path, convert_options=options)[HEADER[1]].to_numpy()
    return values


def write_predictions(path: Path, ids: pa.ChunkedArray, probabilities: NDArray[np.float64], inputs: str | None) -> None:
    """Write validated predictions as CSV with the header ``id,prediction``, in the order of `ids`.

    The same predictions give the same bytes.

    Parameters
    ----------
    path
        The path of the file.
    ids
        Shape (rows,).
    probabilities
        Strictly between 0 and 1, shape (rows,).
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    table = pa.table({HEADER[0]: ids, HEADER[1]: pa.array(probabilities).cast(_NUMBER).cast(pa.string())})
    # style "needed" would quote every text as soon as one needs quotes
    plain = not pc.any(pc.match_substring_regex(ids, '[,"\r\n]')).as_py()
    style = pa_csv.WriteOptions(include_header=False, quoting_style="none" if plain else "needed")
    with (
        outputs.output(path, rows=len(probabilities), columns=HEADER, inputs=inputs) as part,
        part.open("wb") as stream,
    ):
        stream.write(f"{','.join(HEADER)}\n".encode())
        # by native code: after a stop request there are only moments to write millions of rows
        pa_csv.write_csv(table, stream, style)
