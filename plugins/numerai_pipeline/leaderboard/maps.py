"""Reads the t-SNE embeddings at a few thousand rows, the limit of a readable chart and a fast page.

The rows are sampled evenly from all tables, the same for each embedding. They are matched by their ids; files are read
in batches and by the required columns.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_pipeline.storage.untrusted_json import LinkError, RunFiles, as_float, as_str, check_link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from numerai_pipeline.storage.layout import RunLayout

MOST_ROWS = 3_000
_NAME = re.compile(r"perplexity_\d{2,3}(_polynomial)?(_3d)?", re.ASCII)
_TRAINING, _VALIDATION = "training", "validation split"


class EmbeddingError(Exception):
    """An embedding or its table cannot be read; the message names the file and the reason."""


class _Sample(NamedTuple):
    """Rows of all tables, shape (rows,) each."""

    ids: list[str]
    eras: list[str]
    targets: list[float | None]
    parts: list[str]


def embedding_names(layout: RunLayout) -> list[str]:
    """Return the names of the embeddings, such as ``perplexity_30_polynomial``; those of the features come first."""
    found = [path.stem for path in (layout.directory / "tsne").glob("*.parquet") if _NAME.fullmatch(path.stem)]
    return sorted(found, key=lambda name: (name.count("_"), name))


def embedding_rows(layout: RunLayout) -> dict[str, Any]:
    """Describe the sampled rows, the same for all embeddings.

    Returns
    -------
    dict
        ``eras`` and ``parts``: their names; ``era`` and ``part``: for each row, the index of its name in these;
        ``target``: its value, None if unknown.

    Raises
    ------
    EmbeddingError
        When one of the tables is missing or damaged.
    """
    sample = _sample_of(layout)
    eras, parts = sorted(set(sample.eras), key=_era_order), list(dict.fromkeys(sample.parts))
    era_index, part_index = ({name: index for index, name in enumerate(names)} for names in (eras, parts))
    return {
        "eras": eras,
        "parts": parts,
        "era": [era_index[era] for era in sample.eras],
        "part": [part_index[part] for part in sample.parts],
        "target": sample.targets,
    }


def embedding_points(layout: RunLayout, name: str) -> dict[str, list[float | None]]:
    """Return the coordinates of the sampled rows: ``x`` and ``y``, None for a missing row.

    Raises
    ------
    EmbeddingError
        When the embedding does not exist or is damaged.
    """
    if name not in embedding_names(layout):
        msg = f"the embedding {name!r} does not exist"
        raise EmbeddingError(msg)
    ids = _sample_of(layout).ids
    found: dict[str, tuple[float | None, float | None]] = {}
    wanted = frozenset(ids)
    files = [layout.directory / folder / f"{name}.parquet" for folder in ("tsne", "live/tsne")]
    for file in (files[0], *(file for file in files[1:] if os.path.lexists(file))):
        for batch in _batches(layout, file, ["id", "x", "y"], wanted):
            found.update(
                (key, (as_float(x), as_float(y)))
                for key, x, y in zip(*(batch[column].to_pylist() for column in ("id", "x", "y")), strict=True)
            )
    points = [found.get(key, (None, None)) for key in ids]
    return {"x": [_short(x) for x, _ in points], "y": [_short(y) for _, y in points]}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _era_order(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else 2**63, name)


def tables_of(layout: RunLayout) -> list[Path]:
    """List the tables whose rows the embeddings have, the training table first; they need not exist.

    They are of the dataset that t-SNE was fitted on, which can be older than the run's. A directory of an earlier
    release has two tables of its own.
    """
    files = RunFiles(layout.directory)
    content = files.read(layout.task_record("tsne")) or files.read(layout.run_metadata) or {}
    key = as_str(content.get("dataset"))
    if key is None:
        return [layout.training, layout.tournament]
    dataset = layout.data.dataset(key)
    return [dataset.training, dataset.validation, layout.live]


def _sample_of(layout: RunLayout) -> _Sample:
    tables = tables_of(layout)
    state = tuple(
        (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        for path in (*tables, layout.directory / "split.parquet")
    )
    return _sample(layout, tuple(tables), state)


@lru_cache(maxsize=8)
def _sample(layout: RunLayout, tables: tuple[Path, ...], _state: tuple[tuple[int, int], ...]) -> _Sample:
    """Sample the rows; cached until one of the files changes."""
    sizes = {path: _rows(layout, path) for path in tables}
    step = max(1.0, sum(sizes.values()) / MOST_ROWS)
    sample = _Sample([], [], [], [])
    for path, rows in sizes.items():
        is_training = path == tables[0]
        columns = ["id", "era", "target", *([] if is_training else ["data_type"])]
        indices = [int(index * step) for index in range(int(rows / step))]
        for batch in _rows_at(layout, path, columns, indices):
            sample.ids.extend(batch["id"].to_pylist())
            sample.eras.extend(str(era) for era in batch["era"].to_pylist())
            sample.targets.extend(as_float(target) for target in batch["target"].to_pylist())
            own = [_TRAINING] * len(batch) if is_training else batch["data_type"].to_pylist()
            sample.parts.extend(str(part) for part in own)
    split = layout.directory / "split.parquet"
    if split.is_file():
        validation: set[str] = set()
        for batch in _batches(layout, split, ["id", "split"], frozenset(sample.ids)):
            pairs = zip(batch["id"].to_pylist(), batch["split"].to_pylist(), strict=True)
            validation.update(key for key, side in pairs if side == "validation")
        for index, key in enumerate(sample.ids):
            if sample.parts[index] == _TRAINING and key in validation:
                sample.parts[index] = _VALIDATION
    return sample


def _check_location(layout: RunLayout, path: Path) -> None:
    """Check that a file is the run's, a result's or a dataset's, and not a link to another place."""
    try:
        if path.is_relative_to(layout.directory):
            check_link(path, layout.directory)
        elif path.resolve(strict=True) != layout.data.datasets_root.resolve() / path.parent.name / path.name:
            msg = f"{path.name}: a link instead of a table"
            raise EmbeddingError(msg)
    except (LinkError, OSError) as error:
        msg = f"{path.name}: {error}"
        raise EmbeddingError(msg) from error


def _rows(layout: RunLayout, path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_location(layout, path)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path.name}: {error}"
        raise EmbeddingError(msg) from error


def _read(layout: RunLayout, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_location(layout, path)
    try:
        with pq.ParquetFile(path) as file:
            absent = set(columns) - set(file.schema_arrow.names)
            if absent:
                msg = f"{path.name}: column {sorted(absent)[0]!r} is missing"
                raise EmbeddingError(msg)
            yield from file.iter_batches(columns=columns)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path.name}: {error}"
        raise EmbeddingError(msg) from error


def _rows_at(layout: RunLayout, path: Path, columns: list[str], indices: list[int]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table at ascending indices."""
    import pyarrow as pa

    first = 0
    for batch in _read(layout, path, columns):
        selected = [index - first for index in indices if first <= index < first + len(batch)]
        first += len(batch)
        if selected:
            yield batch.take(pa.array(selected))


def _batches(layout: RunLayout, path: Path, columns: list[str], ids: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file with these ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(ids), pa.string())
    for batch in _read(layout, path, columns):
        yield batch.filter(pc.is_in(batch["id"].cast(pa.string()), value_set=wanted))
