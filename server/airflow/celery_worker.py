"""A Celery worker of the server: checks the data directory, then becomes Airflow's worker.

``python -m server.airflow.celery_worker --queues cpu``; the arguments are those of ``airflow celery worker``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from server.airflow.bootstrap import check_data_volume


def main() -> None:
    """Check the data directory, then become the worker.

    Raises
    ------
    SystemExit
        When the data directory is not the server's, or model containers cannot use it.
    """
    data = Path(os.environ["NUMERAI_DATA_DIR"])
    if not (data / ".installation").is_file():
        sys.exit(
            f"FAILED: {data} is not the server's data directory: its file .installation is"
            " missing. Mount the shared storage before the worker starts, at the same path as on the server"
        )
    check_data_volume()
    sys.stdout.flush()
    os.execvp("airflow", ["airflow", "celery", "worker", *sys.argv[1:]])  # noqa: S606 - it becomes this program


if __name__ == "__main__":
    main()
