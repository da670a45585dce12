"""Detects duplicate row ids within and across tables, exactly, with eight bytes of memory for each id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from numerai_pipeline.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUSPECTS = 1_000


class SourceOfIds(Protocol):
    """A raw file whose ids can be read repeatedly."""

    name: str

    def read_text(self, column: str) -> Iterator[Any]:
        """Yield the column's values as arrays of strings, in the file's order."""


class DuplicateIdDetector:
    """Stores a 64-bit hash of each id, and compares the ids themselves if two hashes are equal.

    Seven million ids take 56 MB, and twice as much during :meth:`check`.
    """

    def __init__(self) -> None:
        self._hashes: list[np.ndarray[Any, np.dtype[np.int64]]] = []

    def add(self, ids: Any) -> None:
        """Add an array of strings (``pyarrow.StringArray``)."""
        # Python's hash is salted for each process, so colliding ids cannot be prepared
        self._hashes.append(np.fromiter(map(hash, ids.to_pylist()), dtype=np.int64, count=len(ids)))

    def check(self, sources: Sequence[SourceOfIds]) -> None:
        """Check that no id was added twice.

        Parameters
        ----------
        sources : sequence
            The files of the ids, in the order in which the ids were added.

        Raises
        ------
        BadInputError
            Naming the id and both of its rows.
        """
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        hashes.sort()
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(suspects):
            # a few suspects are enough to find a duplicate: different ids have equal hashes in very few datasets
            _verify_collisions(sources, set(suspects[:_SUSPECTS].tolist()))


def _verify_collisions(sources: Sequence[SourceOfIds], suspects: set[int]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        row = 0
        for ids in source.read_text("id"):
            for identifier in ids.to_pylist():
                row += 1
                if hash(identifier) not in suspects:
                    continue
                if identifier in seen:
                    msg = (
                        f"{source.name}: row {row:,}, column 'id': {identifier!r} is also in {seen[identifier]}, but"
                        " ids must be unique: remove one of the rows or download the file again"
                    )
                    raise BadInputError(msg)
                seen[identifier] = f"row {row:,} of {source.name}"
