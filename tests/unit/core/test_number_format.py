"""Numbers in messages: the digits that a reader needs to see which side of a bound a value is on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from numerai_pipeline.core.number_format import distinct_texts, exact_text


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (1.0, pa.float32(), "1"),
        (float(np.nextafter(np.float32(1), np.float32(2))), pa.float32(), "1.0000001"),
        (float(np.nextafter(np.float32(0), np.float32(-1))), pa.float32(), "-1e-45"),
        (0.1, pa.float32(), "0.1"),
        (float(np.nextafter(1.0, 2.0)), pa.float64(), "1.0000000000000002"),
        (-5e-324, pa.float64(), "-5e-324"),
        (float("-inf"), pa.float64(), "-inf"),
        (12, pa.int8(), "12"),
    ],
)
def test_exact_text_shows_the_digits_of_its_type(value: float, kind: pa.DataType, text: str) -> None:
    assert exact_text(pa.scalar(value, kind)) == text


@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        (67.1e6, 8.4e6, ("67,100,000.0", "8,400,000.0")),
        (67.12, 67.08, ("67.12", "67.08")),
        (100.0004, 100.0, ("100.0004", "100.0000")),
        (5.0, 5.0, ("5.0", "5.0")),
    ],
)
def test_distinct_texts_adds_decimals_until_they_differ(first: float, second: float, texts: tuple[str, str]) -> None:
    assert distinct_texts(first, second) == texts
