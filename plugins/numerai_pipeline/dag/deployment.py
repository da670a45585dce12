"""The id of the Airflow deployment: it labels the deployment's containers, and is kept in Airflow's database.

Another Airflow has another database and so another id, also if it uses the same engine or the same data volume.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from airflow.sdk import Variable

from numerai_pipeline.storage.locks import exclusive_lock

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "numerai_deployment"
"""Airflow's variable with the id; the environment variable ``AIRFLOW_VAR_NUMERAI_DEPLOYMENT`` overrides it."""


def deployment_id(data_dir: Path) -> str:
    """Return the id of this Airflow deployment; the first use creates it.

    Parameters
    ----------
    data_dir : Path
        The data volume, on which the tasks that need the id at the same time lock a file.
    """
    found = Variable.get(VARIABLE, default="")
    if not found:
        with exclusive_lock(data_dir / VARIABLE, "choosing the id of this deployment"):
            found = Variable.get(VARIABLE, default="")
            if not found:
                found = uuid.uuid4().hex[:12]
                Variable.set(VARIABLE, found, "Id of this Airflow in the labels of its containers. Do not change it.")
    return str(found)
