"""What is done once before Airflow's parts start: the service ``airflow-init`` of ``docker-compose.yaml``.

As root it gives the data directory to Airflow's user; then, as that user, it migrates the database, makes the pool that
bounds the models' load and the first user, unless they are there. All of it may be done again at every start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

USER = 50000
"""Airflow's user and group in the image (``server/airflow/Dockerfile``)."""
POOL = "numerai_models"
SECONDS = 600


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


def airflow(*words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Airflow's command line.

    Raises
    ------
    SystemExit
        When it fails and that is checked, with the end of what it said.
    """
    done = subprocess.run(
        ["airflow", *words], input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if check and done.returncode:
        sys.exit(f"airflow {' '.join(words[:2])} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done


def ensure_pool() -> str:
    """Make the models' pool, unless there is one, whose size is the user's business then."""
    pool = os.environ.get("NUMERAI_POOL") or POOL
    if airflow("pools", "get", pool, check=False).returncode == 0:
        return f"pool {pool} is there"
    slots = os.environ.get("MODEL_SLOTS") or str(os.cpu_count() or 1)
    airflow("pools", "set", pool, slots, "Cores of the machine, shared by the models' containers.")
    return f"pool {pool} made, with {slots} slots"


def ensure_first_user() -> str:
    """Make the first user, an administrator, unless there is any."""
    listed = airflow("users", "list", "--output", "json").stdout
    # what libraries say on the way to the answer stands before it
    users = json.loads(listed[listed.index("[{") if "[{" in listed else listed.rindex("[") :])
    if users:
        return f"{len(users)} users are there"
    name, password = os.environ.get("ADMIN_USER") or "admin", os.environ["ADMIN_PASSWORD"]
    make_user(name, "Admin", password)
    return f"user {name} made, with the password of .env"


def make_user(name: str, role: str, password: str) -> None:
    """Make a user; the password is not on the command line, which everybody on the host could read."""
    facts = ["--firstname", name, "--lastname", role, "--email", f"{name}@localhost"]
    airflow("users", "create", "--username", name, "--role", role, *facts, stdin=f"{password}\n{password}\n")


def main() -> int:
    """Do all of it; returns the exit code."""
    give_to_airflow(Path(os.environ["NUMERAI_DATA_DIR"]))
    give_to_airflow(Path("/opt/airflow/logs"))
    if os.getuid() == 0:
        become_airflow()
    airflow("db", "migrate")
    print("the database is up to date", flush=True)
    with ThreadPoolExecutor() as pool:
        for said in pool.map(lambda task: task(), (ensure_pool, ensure_first_user)):
            print(said, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
