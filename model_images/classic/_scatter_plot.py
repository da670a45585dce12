"""A scatter plot of an embedding: rows with a known target coloured by it, above all others in grey."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import outputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# more points would overlap and make a large file
_MAX_POINTS = 20_000


def draw(
    path: Path, coordinates: NDArray[np.float32], targets: NDArray[np.float32], title: str, subtitle: str, seed: int
) -> None:
    """Write a scatter plot as PNG.

    Parameters
    ----------
    path
        The path of the file.
    coordinates
        Shape (rows, 2 or 3).
    targets
        In [0, 1], NaN where unknown; shape (rows,).
    title, subtitle
        A line in large letters, and a line in small ones.
    seed
        Selects the points when there are too many, and their order.
    """
    # before the import: a container can write to /tmp only
    os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")  # noqa: S108 (the container's own, gone with it)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = np.random.default_rng(seed).permutation(len(coordinates))[:_MAX_POINTS]
    known = ~np.isnan(targets[drawn])
    size = float(np.clip(24_000 / len(drawn), 2.0, 18.0))
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    three = coordinates.shape[1] == 3
    axes: Any = figure.add_subplot(projection="3d" if three else None)
    style = {"s": size, "linewidths": 0, "rasterized": True}
    unknown = coordinates[drawn[~known]]
    if len(unknown):
        axes.scatter(*unknown.T, color="#b8bcc2", alpha=0.5, label=f"target unknown ({len(unknown):,})", **style)
    coloured = coordinates[drawn[known]]
    if len(coloured):
        values = targets[drawn[known]]
        shown = axes.scatter(*coloured.T, c=values, cmap="viridis", vmin=0, vmax=1, alpha=0.75, **style)
        figure.colorbar(shown, ax=axes, shrink=0.6, pad=0.02, label="target").solids.set_alpha(1)
    figure.suptitle(title, fontsize=14, x=0.02, ha="left")
    shown_rows = f"{len(drawn):,} of {len(coordinates):,} rows shown"
    axes.set_title(f"{subtitle}; {shown_rows}", fontsize=9, loc="left", color="0.35")
    if not three:
        axes.set_aspect("equal", "datalim")
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors="0.5", length=0)
    if len(unknown):
        axes.legend(loc="lower right", fontsize=8, frameon=False, markerscale=2)
    with outputs.atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110)
