"""The stables whose DAGs a process builds: all of them, or that of the task that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk import get_parsing_context

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.stables import Stable, StableBuilder
from numerai_pipeline.storage.valid_stables import read_valid_stables, write_valid_stable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerai_pipeline.core.settings import Settings
    from numerai_pipeline.models.registry import Registry


@dataclass(frozen=True)
class Stables:
    """All stables of a deployment, by :func:`load_stables`.

    Attributes
    ----------
    all : tuple of Stable
    """

    all: tuple[Stable, ...]

    @property
    def dag_ids(self) -> tuple[str, ...]:
        """The ids of their DAGs."""
        return tuple(stable.dag_id for stable in self.all)

    def to_build(self) -> Iterator[Stable]:
        """Yield the stables whose DAGs Airflow needs: that of the task that this process runs, or all."""
        needed = get_parsing_context().dag_id
        return (stable for stable in self.all if needed is None or needed == stable.dag_id)

    def require_valid(self, stable: Stable, data_dir: Path) -> None:
        """Check a stable at the start of a run, and keep its valid version for the tasks of the run.

        Raises
        ------
        BadInputError
            Naming the file, the stable, the key, its value and the remedy.
        """
        if stable.problem is not None:
            raise BadInputError(stable.problem)
        if stable.content is not None:
            write_valid_stable(data_dir, stable.name, stable.content, [each.name for each in self.all])


def load_stables(settings: Settings, registry: Registry) -> Stables:
    """Read all stables; a mistake is the ``problem`` of its stable, never an error."""
    last_valid = read_valid_stables(settings.data_dir) if settings.stables else {}
    return Stables(tuple(StableBuilder(settings, registry.models, registry.predictions, last_valid).build()))
