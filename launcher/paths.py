"""The paths of a checkout; all paths that the launcher writes to are here."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ProjectPaths:
    """One checkout of the project: the bundle's folders, and the generated ones beside them (all git-ignored)."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        # the DAG bundle, and Airflow's plugins
        self.dags, self.plugins = root / "dags", root / "plugins"
        # the model images, and the data volume
        self.images_dir = Path(os.environ.get("NUMERAI_IMAGES_DIR") or root / "model_images")
        self.data = Path(os.environ.get("NUMERAI_DATA_DIR") or root / "data")
        # Airflow's configuration, database, logs, password; and its id, which labels its containers
        self.airflow_home = root / ".airflow"
        self.deployment = self.airflow_home / "deployment-id"
        # the launcher's locks and cached downloads, the logs of its steps, and the records of started programs
        self.cache = root / ".cache"
        self.logs, self.services = self.cache / "logs", self.cache / "services"
        # the settings and secrets of a server, and the default folder of its backups
        self.env_file, self.backups = root / ".env", root / "backups"
