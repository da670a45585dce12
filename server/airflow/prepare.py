"""What is done once before Airflow's parts start: the service ``airflow-init`` of ``docker-compose.yaml``.

As root it gives the data directory to Airflow's user; then, as that user, it migrates the database, makes the pool that
bounds the models' load and the first user, unless they are there, and tries whether models' containers share the data
directory. All of it may be done again at every start.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

USER = 50000
"""Airflow's user and group in the image (``server/airflow/Dockerfile``)."""
POOL = "numerai_models"
PLUGINS = "/opt/numerai/plugins"
CHECK_SECONDS = 300


def give_to_airflow(directory: Path) -> None:
    """Give a directory to Airflow's user, with all that is in it if it belonged to somebody else."""
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_uid == USER:
        return
    for folder, _, files in os.walk(directory):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(path, USER, USER, follow_symlinks=False)
    print(f"{directory} belongs to Airflow's user ({USER}) now", flush=True)


def become_airflow() -> None:
    """Go on as Airflow's user, without any of root's rights."""
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)


def airflow(*words: str) -> str:
    """Do what Airflow's command line does, in this process: starting it costs seconds each time.

    Returns
    -------
    str
        What it printed.
    """
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(words)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        arguments.func(arguments)
    return said.getvalue()


def ensure_pool() -> str:
    """Make the models' pool, unless there is one, whose size is the user's business then."""
    pool = os.environ.get("NUMERAI_POOL") or POOL
    if pool in [each["pool"] for each in listed("pools")]:
        return f"pool {pool} is there"
    slots = os.environ.get("MODEL_SLOTS") or str(os.cpu_count() or 1)
    airflow("pools", "set", pool, slots, "Cores of the machine, shared by the models' containers.")
    return f"pool {pool} made, with {slots} slots"


def ensure_first_user() -> str:
    """Make the first user, an administrator, unless there is any."""
    users = listed("users")
    if users:
        return f"{len(users)} users are there"
    name, password = os.environ.get("ADMIN_USER") or "admin", os.environ["ADMIN_PASSWORD"]
    facts = ["--firstname", name, "--lastname", "Admin", "--email", f"{name}@localhost"]
    airflow("users", "create", "--username", name, "--role", "Admin", *facts, "--password", password)
    return f"user {name} made, with the password of .env"


def try_data_volume() -> None:
    """Start a container that reads what is written here, and end with what is wrong where it cannot.

    Raises
    ------
    SystemExit
        When models' containers and Airflow do not share the data directory.
    """
    command = [sys.executable, "-m", "numerai_pipeline.check_data_volume"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": PLUGINS}, timeout=CHECK_SECONDS, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def listed(what: str) -> list[dict[str, str]]:
    """Have Airflow list its pools or users."""
    said = airflow(what, "list", "--output", "json")
    # what libraries say on the way to the answer stands before it
    found: list[dict[str, str]] = json.loads(next(line for line in reversed(said.splitlines()) if line[:1] == "["))
    return found


def main() -> int:
    """Do all of it; returns the exit code."""
    give_to_airflow(Path(os.environ["NUMERAI_DATA_DIR"]))
    give_to_airflow(Path("/opt/airflow/logs"))
    if os.getuid() == 0:
        become_airflow()
    airflow("db", "migrate")
    print("the database is up to date", flush=True)
    for ensure in (ensure_pool, ensure_first_user):
        print(ensure(), flush=True)
    try_data_volume()
    return 0


if __name__ == "__main__":
    sys.exit(main())
