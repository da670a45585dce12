"""Writers of JSON and CSV: numbers with all digits, null or an empty field instead of NaN."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def to_jsonable(value: Any) -> Any:
    """Convert numpy values to types that JSON supports; NaN becomes None."""
    if isinstance(value, dict):
        return {key: to_jsonable(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_jsonable(inner) for inner in value]
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: Path, content: Mapping[str, Any], inputs: str | None) -> None:
    """Write JSON, and its manifest; `inputs` as in `numerai_contract.outputs.output`."""
    text = json.dumps(to_jsonable(dict(content)), indent=1, ensure_ascii=False, allow_nan=False)
    with outputs.output(path, rows=None, columns=(), inputs=inputs) as part:
        part.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], inputs: str | None) -> None:
    """Write these columns of the rows as CSV, and its manifest; None becomes an empty field."""
    with (
        outputs.output(path, rows=len(rows), columns=columns, inputs=inputs) as part,
        part.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
