"""The environment of a task's process, which Airflow's real supervisor starts as the scheduler does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from numerai_pipeline.dag.task_secrets import SECRETS
from tests.samples import ROOT

DAG = """
import os
from airflow.sdk import DAG, task

def show(when):
    print(when, sorted(name for name, value in os.environ.items() if "secret-of-the-tests" in value))

show("parsing")
with DAG("environment"):
    @task(task_id="show")
    def executing():
        show("executing")
    executing()
"""


def test_task_process_has_no_secrets_of_airflows_components(tmp_path: Path) -> None:
    (tmp_path / "environment.py").write_text(DAG)
    database = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    environment = {
        **os.environ,
        **dict.fromkeys(SECRETS, "secret-of-the-tests"),
        # a valid key and address, which the supervisor uses
        "AIRFLOW__CORE__FERNET_KEY": "c2VjcmV0LW9mLXRoZS10ZXN0cy1zZWNyZXQtb2YtdGg=",
        database: f"sqlite:///{tmp_path}/airflow.db?cache=secret-of-the-tests",
        "NUMERAI_SECRET_KEY": "secret-of-the-tests",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.dag.supervised_environment", tmp_path],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # the last line of each kind is the task's; the key of the Numerai account is for tasks
    seen = dict(re.findall(r"(parsing|executing) (\[.*?\])", done.stdout))
    assert seen == {"parsing": "['NUMERAI_SECRET_KEY']", "executing": "['NUMERAI_SECRET_KEY']"}, (
        done.stdout + done.stderr
    )
