"""A Celery worker of the server's: sees that it has the server's data, then becomes Airflow's worker.

``python -m server.airflow.work --queues cpu``; the arguments are those of ``airflow celery worker``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from server.airflow.prepare import try_data_volume


def main() -> None:
    """Check, then become the worker.

    Raises
    ------
    SystemExit
        When the data directory is not the server's, or models' containers cannot work with it.
    """
    data = Path(os.environ["NUMERAI_DATA_DIR"])
    if not (data / ".installation").is_file():
        sys.exit(
            f"FAILED: {data} is not the server's data directory: .installation, which the server writes there, is"
            " missing. Mount the shared storage there before the worker starts, at the same path as on the server"
        )
    try_data_volume()
    sys.stdout.flush()
    os.execvp("airflow", ["airflow", "celery", "worker", *sys.argv[1:]])  # noqa: S606 - it is to become this program


if __name__ == "__main__":
    main()
