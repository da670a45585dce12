"""Numbers in messages: with enough digits that a value beyond a bound never prints as the bound."""

from __future__ import annotations

from typing import Any

_MAX_DECIMALS = 17


def exact_text(scalar: Any) -> str:
    """Format a number with the digits that its type distinguishes, and no more.

    Parameters
    ----------
    scalar : pyarrow.Scalar
        A float32, a double or an integer, not null.

    Returns
    -------
    str
        ``1.0000001`` for the float32 after 1, ``1`` for 1 itself.
    """
    import numpy as np  # a slow import, needed for errors only

    value = scalar.as_py()
    text = str(np.float32(value)) if scalar.type.bit_width == 32 and isinstance(value, float) else repr(value)
    return text.removesuffix(".0")


def distinct_texts(first: float, second: float, decimals: int = 1) -> tuple[str, str]:
    """Format two numbers with thousands separators and the fewest decimals, at least ``decimals``, that differ."""
    texts = f"{first:,.{decimals}f}", f"{second:,.{decimals}f}"
    while texts[0] == texts[1] and first != second and decimals < _MAX_DECIMALS:
        decimals += 1
        texts = f"{first:,.{decimals}f}", f"{second:,.{decimals}f}"
    return texts
