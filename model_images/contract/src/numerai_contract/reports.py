"""What a model tells about a run: how much it learned from, what it chose, how well it did."""

from __future__ import annotations

import contextlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from numerai_contract import outputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# read and written by the contract itself, in every image
_OWN_LIBRARIES = ("numpy", "pyarrow")
_DIGITS = 6


def write_report(path: Path, report: dict[str, Any], inputs: str | None) -> None:
    """Write a report as JSON, with its manifest.

    Parameters
    ----------
    path
        Where to.
    report
        Anything JSON can hold; floats are cut to six decimals.
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    text = json.dumps(_rounded(report), indent=2, ensure_ascii=False, allow_nan=False)
    with outputs.output(path, rows=None, columns=(), inputs=inputs) as part:
        part.write_text(text + "\n", encoding="utf-8")


def library_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Look up the installed versions of libraries; those not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in (*_OWN_LIBRARIES, *distributions):
        # an image may do without one, as on a processor it has no build for
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
