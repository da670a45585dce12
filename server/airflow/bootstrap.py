"""Prepares a server before Airflow's components start: the service ``airflow-init`` of ``docker-compose.yaml``.

As root it changes the owner of the data directory to Airflow's user; then, as that user, it migrates the database,
creates the models' pool, the deployment's id and the first user if they are missing, and checks that model containers
share the data directory. It runs at every start; repeated runs are harmless.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

USER = 50000
"""Airflow's user and group in the image (``server/airflow/Dockerfile``)."""
DEPLOYMENT = "numerai_deployment"
"""As in ``numerai_pipeline.dag.deployment``, which a task imports."""
PLUGINS = "/opt/numerai/plugins"
CHECK_SECONDS = 300


def chown_to_airflow(directory: Path) -> None:
    """Change the owner of a directory to Airflow's user, with all its content if it belonged to another user."""
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_uid == USER:
        return
    for folder, _, files in os.walk(directory):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(path, USER, USER, follow_symlinks=False)
    print(f"{directory} now belongs to Airflow's user ({USER})", flush=True)


def drop_privileges() -> None:
    """Continue as Airflow's user, without root's rights."""
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)


def airflow(*command: str) -> str:
    """Run a command of Airflow's command line in this process, as each start of it takes seconds.

    Returns
    -------
    str
        Its output.
    """
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(command)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        arguments.func(arguments)
    return output.getvalue()


def ensure_pool() -> str:
    """Create the models' pool, or enlarge one with fewer slots than cores: a task of all cores would wait forever.

    A larger pool keeps its size, which the user may have changed.
    """
    # Airflow's command has put the plugins on the path
    from numerai_pipeline.core.settings import load_settings

    pool, cores = load_settings().pool, load_settings().cores
    existing = {each["pool"]: int(each["slots"]) for each in list_objects("pools")}
    if existing.get(pool, 0) >= cores:
        return f"pool {pool} exists with {existing[pool]} slots"
    airflow("pools", "set", pool, str(cores), "Cores that the models' containers share.")
    return f"pool {pool} set to {cores} slots"


def ensure_deployment() -> str:
    """Create the id of this deployment, if it has none: `make server-down` removes the containers with its label."""
    if DEPLOYMENT in [each["key"] for each in list_objects("variables")]:
        return f"variable {DEPLOYMENT} exists"
    airflow(
        "variables", "set", DEPLOYMENT, uuid.uuid4().hex[:12], "--description", "Id of this Airflow. Do not change it."
    )
    return f"variable {DEPLOYMENT} created"


def ensure_first_user() -> str:
    """Create the first user, an administrator, if there are no users."""
    users = list_objects("users")
    if users:
        return f"{len(users)} users exist"
    name, password = os.environ.get("ADMIN_USER") or "admin", os.environ["ADMIN_PASSWORD"]
    profile = ["--firstname", name, "--lastname", "Admin", "--email", f"{name}@localhost"]
    airflow("users", "create", "--username", name, "--role", "Admin", *profile, "--password", password)
    return f"user {name} created with the password of .env"


def check_data_volume() -> None:
    """Check that a container can read a file written here; else end with the error.

    Raises
    ------
    SystemExit
        When model containers and Airflow do not share the data directory.
    """
    command = [sys.executable, "-m", "numerai_pipeline.containers.check_data_volume"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": PLUGINS}, timeout=CHECK_SECONDS, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def list_objects(kind: str) -> list[dict[str, str]]:
    """List Airflow's pools, variables or users."""
    output = airflow(kind, "list", "--output", "json")
    # output of libraries precedes the result
    found: list[dict[str, str]] = json.loads(next(line for line in reversed(output.splitlines()) if line[:1] == "["))
    return found


def main() -> int:
    """Run all steps; returns the exit code."""
    chown_to_airflow(Path(os.environ["NUMERAI_DATA_DIR"]))
    chown_to_airflow(Path("/opt/airflow/logs"))
    if os.getuid() == 0:
        drop_privileges()
    airflow("db", "migrate")
    print("the database is up to date", flush=True)
    for ensure in (ensure_pool, ensure_deployment, ensure_first_user):
        print(ensure(), flush=True)
    check_data_volume()
    return 0


if __name__ == "__main__":
    sys.exit(main())
