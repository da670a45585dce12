"""Row ids must be unique within and across a run's tables: told exactly, in eight bytes of memory an id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from numerai_pipeline.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUSPECTS = 1_000


class SourceOfIds(Protocol):
    """A raw file whose ids can be read again."""

    name: str

    def read_text(self, column: str) -> Iterator[Any]:
        """Yield the column's values as arrays of strings, in the file's order."""


class DuplicateIdDetector:
    """Remembers a 64-bit hash of every id, and looks at the ids themselves only where two hashes are equal.

    Seven million ids take 56 MB, twice that for the moment of :meth:`check`.
    """

    def __init__(self) -> None:
        self._hashes: list[np.ndarray[Any, np.dtype[np.int64]]] = []

    def add(self, ids: Any) -> None:
        """Remember an array of strings (``pyarrow.StringArray``)."""
        # Python's own hash is salted in every process: nobody can prepare ids that collide
        self._hashes.append(np.fromiter(map(hash, ids.to_pylist()), dtype=np.int64, count=len(ids)))

    def check(self, sources: Sequence[SourceOfIds]) -> None:
        """Make sure that no id was added twice.

        Parameters
        ----------
        sources : sequence
            The files that the ids came from, in the order they were added.

        Raises
        ------
        BadInputError
            Naming the id and both of its places.
        """
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        hashes.sort()
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(suspects):
            # a few are enough to find a true pair: two different ids share a hash once in many thousand datasets
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
