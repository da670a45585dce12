"""The paths of a checkout; all paths that the launcher writes to are here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ProjectPaths:
    """One checkout of the project: the bundle's folders, and the generated ones beside them (all git-ignored)."""

    root: Path = ROOT

    @property
    def dags(self) -> Path:
        """The DAG bundle's folder."""
        return self.root / "dags"

    @property
    def plugins(self) -> Path:
        """Airflow's plugins folder."""
        return self.root / "plugins"

    @property
    def images_dir(self) -> Path:
        """The model images, or the folder set in NUMERAI_IMAGES_DIR."""
        return Path(os.environ.get("NUMERAI_IMAGES_DIR") or self.root / "model_images")

    @property
    def data(self) -> Path:
        """The data volume, or the folder set in NUMERAI_DATA_DIR."""
        return Path(os.environ.get("NUMERAI_DATA_DIR") or self.root / "data")

    @property
    def airflow_home(self) -> Path:
        """Airflow's home: configuration, database, logs, password."""
        return self.root / ".airflow"

    @property
    def deployment(self) -> Path:
        """The id of this Airflow, which labels its containers."""
        return self.airflow_home / "deployment-id"

    @property
    def cache(self) -> Path:
        """The launcher's own files: locks, records of started programs, logs, cached downloads."""
        return self.root / ".cache"

    @property
    def logs(self) -> Path:
        """Logs of the launcher's own steps."""
        return self.cache / "logs"

    @property
    def services(self) -> Path:
        """Records of the background programs that were started."""
        return self.cache / "services"

    @property
    def env_file(self) -> Path:
        """The settings and secrets of a server (`make server`)."""
        return self.root / ".env"

    @property
    def backups(self) -> Path:
        """Default folder of a server's backups."""
        return self.root / "backups"
