"""The report of a model about a run: its training rows, its parameters and its scores."""

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

# used by the contract itself, in every image
_CONTRACT_LIBRARIES = ("numpy", "pyarrow")
_DIGITS = 6


def write_report(path: Path, report: dict[str, Any], inputs: str | None) -> None:
    """Write a report as JSON, with its manifest.

    Parameters
    ----------
    path
        The path of the file.
    report
        Any JSON value; floats are rounded to six decimals.
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    text = json.dumps(_rounded(report), indent=2, ensure_ascii=False, allow_nan=False)
    with outputs.output(path, rows=None, columns=(), inputs=inputs) as part:
        part.write_text(text + "\n", encoding="utf-8")


def library_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Look up the installed versions of libraries; missing libraries are omitted."""
    versions = {"python": platform.python_version()}
    for name in (*_CONTRACT_LIBRARIES, *distributions):
        # an image may lack one, as on a processor without a build of it
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
