"""The maps that t-SNE drew, at a few thousand rows: as many as an eye tells apart and a page can carry.

The rows are drawn evenly from both tables, the same for every map. As everywhere, they are found by their ids, and
files are read a batch at a time and by the columns that are needed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_pipeline.leaderboard.plain import number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from numerai_pipeline.run_layout import RunLayout

MOST_ROWS = 3_000
_NAME = re.compile(r"perplexity_\d{2,3}(_polynomial)?(_3d)?", re.ASCII)
_TRAINING, _VALIDATION = "training", "kept to validate on"


class MapError(Exception):
    """A map, or a table it is of, cannot be read; the message says which and why."""


class _Sample(NamedTuple):
    """Rows of both tables, shape (rows,) each."""

    ids: list[str]
    eras: list[str]
    targets: list[float | None]
    parts: list[str]


def map_names(layout: RunLayout) -> list[str]:
    """Name the maps that are there, such as ``perplexity_30_polynomial``, those of the features alone first."""
    found = [path.stem for path in (layout.directory / "tsne").glob("*.parquet") if _NAME.fullmatch(path.stem)]
    return sorted(found, key=lambda name: (name.count("_"), name))


def map_rows(layout: RunLayout) -> dict[str, Any]:
    """Say what is known of the rows on every map.

    Returns
    -------
    dict
        ``eras`` and ``parts``: their names; ``era`` and ``part``: for each row, the place of its own among these;
        ``target``: its value, None where unknown.

    Raises
    ------
    MapError
        When one of the tables is missing or damaged.
    """
    sample = _sample_of(layout)
    eras, parts = sorted(set(sample.eras), key=_era_order), list(dict.fromkeys(sample.parts))
    era_places, part_places = ({name: place for place, name in enumerate(names)} for names in (eras, parts))
    return {
        "eras": eras,
        "parts": parts,
        "era": [era_places[era] for era in sample.eras],
        "part": [part_places[part] for part in sample.parts],
        "target": sample.targets,
    }


def map_points(layout: RunLayout, name: str) -> dict[str, list[float | None]]:
    """Give where a map has these rows: ``x`` and ``y``, None for a row it lacks.

    Raises
    ------
    MapError
        When there is no such map, or it is damaged.
    """
    if name not in map_names(layout):
        msg = f"there is no map {name!r}"
        raise MapError(msg)
    ids = _sample_of(layout).ids
    found: dict[str, tuple[float | None, float | None]] = {}
    wanted = frozenset(ids)
    for batch in _batches(layout.directory / "tsne" / f"{name}.parquet", ["id", "x", "y"], wanted):
        found.update(
            (key, (number(x), number(y)))
            for key, x, y in zip(*(batch[column].to_pylist() for column in ("id", "x", "y")), strict=True)
        )
    points = [found.get(key, (None, None)) for key in ids]
    return {"x": [_short(x) for x, _ in points], "y": [_short(y) for _, y in points]}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _era_order(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 2**63, name)


def _sample_of(layout: RunLayout) -> _Sample:
    split = layout.directory / "split.parquet"
    state = tuple(
        (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        for path in (layout.training, layout.tournament, split)
    )
    return _sample(layout, state)


@lru_cache(maxsize=8)
def _sample(layout: RunLayout, _state: tuple[tuple[int, int], ...]) -> _Sample:
    """Draw the rows; drawn again only when one of the files is another one."""
    sizes = {path: _rows(path) for path in (layout.training, layout.tournament)}
    step = max(1.0, sum(sizes.values()) / MOST_ROWS)
    sample = _Sample([], [], [], [])
    for path, rows in sizes.items():
        columns = ["id", "era", "target", *(["data_type"] if path == layout.tournament else [])]
        places = [int(place * step) for place in range(int(rows / step))]
        for batch in _taken(path, columns, places):
            sample.ids.extend(batch["id"].to_pylist())
            sample.eras.extend(str(era) for era in batch["era"].to_pylist())
            sample.targets.extend(number(target) for target in batch["target"].to_pylist())
            own = batch["data_type"].to_pylist() if "data_type" in columns else [_TRAINING] * len(batch)
            sample.parts.extend(str(part) for part in own)
    split = layout.directory / "split.parquet"
    if split.is_file():
        kept: set[str] = set()
        for batch in _batches(split, ["id", "split"], frozenset(sample.ids)):
            pairs = zip(batch["id"].to_pylist(), batch["split"].to_pylist(), strict=True)
            kept.update(key for key, side in pairs if side == "validation")
        for place, key in enumerate(sample.ids):
            if sample.parts[place] == _TRAINING and key in kept:
                sample.parts[place] = _VALIDATION
    return sample


def _within_the_run(path: Path) -> None:
    """Refuse what a container may have linked to from its run's directory."""
    if path.is_symlink() or path.parent.is_symlink():
        msg = f"{path.name}: a link, where a file should be"
        raise MapError(msg)


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _within_the_run(path)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path.name}: {error}"
        raise MapError(msg) from error


def _read(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _within_the_run(path)
    try:
        with pq.ParquetFile(path) as file:
            absent = set(columns) - set(file.schema_arrow.names)
            if absent:
                msg = f"{path.name}: column {sorted(absent)[0]!r} is missing"
                raise MapError(msg)
            yield from file.iter_batches(columns=columns)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path.name}: {error}"
        raise MapError(msg) from error


def _taken(path: Path, columns: list[str], places: list[int]) -> Iterator[pa.RecordBatch]:
    """Give the rows at these places, ascending, of a table."""
    import pyarrow as pa

    first = 0
    for batch in _read(path, columns):
        mine = [place - first for place in places if first <= place < first + len(batch)]
        first += len(batch)
        if mine:
            yield batch.take(pa.array(mine))


def _batches(path: Path, columns: list[str], ids: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """Give the rows with these ids of a file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(ids), pa.string())
    for batch in _read(path, columns):
        yield batch.filter(pc.is_in(batch["id"].cast(pa.string()), value_set=wanted))
