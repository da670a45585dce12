"""A run's directory as tasks pass it on: relative to the data volume, whose path differs between machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.storage.layout import RunLayout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

XCOM_KEY = "directory"
TEMPLATE = f"{{{{ (ti.xcom_pull(task_ids='{UNZIP}') or {{'{XCOM_KEY}': ''}})['{XCOM_KEY}'] }}}}"
"""Template of :attr:`RunDirectory.relative_path`, from the return value of ``unzip``; empty where it has none."""


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory on the data volume.

    Attributes
    ----------
    relative_path : str
        The directory, relative to the data volume: ``rounds/<round>/<fingerprint>``.
    """

    relative_path: str

    @classmethod
    def of(cls, layout: RunLayout, data_dir: Path) -> RunDirectory:
        """Refer to a run's directory on a data volume."""
        return cls(str(layout.directory.relative_to(data_dir)))

    @classmethod
    def from_xcom(cls, value: Mapping[str, Any]) -> RunDirectory:
        """Read the return value of ``unzip``."""
        return cls(str(value[XCOM_KEY]))

    def to_xcom(self) -> dict[str, str]:
        """Return the entry of :meth:`from_xcom`."""
        return {XCOM_KEY: self.relative_path}

    def layout(self, data_dir: Path) -> RunLayout:
        """Return the absolute paths of the run's files.

        Parameters
        ----------
        data_dir : Path
            The data volume's path for this process.
        """
        return RunLayout(data_dir / self.relative_path)
