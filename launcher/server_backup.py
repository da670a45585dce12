"""``make server-backup`` and ``make server-restore``: database, secrets, and what of the data cannot be had again.

A backup is a folder, readable by its owner alone::

    backups/<moment>/
        database.dump   what pg_dump says, in its own compressed form
        data.tar.gz     predictions, reports, boards, what was submitted, every manifest (DATA=1: all files)
        env             the .env of that moment: without its Fernet key the connections cannot be read
        backup.json     what it is, and each file's SHA-256
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import server_settings
from launcher.errors import LauncherError, UsageError
from launcher.processes import CommandError, end_of
from launcher.server import existing, prepare, say_where, stop_airflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.compose import Compose
    from launcher.knobs import Knobs
    from launcher.session import Session

DATABASE, DATA, ENV, FACTS = "database.dump", "data.tar.gz", "env", "backup.json"
HOURS = 6 * 3600.0
USER = "50000:50000"


def backup(session: Session, knobs: Knobs) -> int:
    """Back up a server that runs."""
    target = Path(knobs.server.get("TO") or session.checkout.backups).expanduser()
    everything = knobs.server.get("DATA", "").lower() in {"1", "true", "yes", "on"}
    with session.only_one("server-backup"):
        back_up(session, existing(session), target, everything=everything)
    return 0


def back_up(session: Session, compose: Compose, target: Path, *, everything: bool) -> Path:
    """Write a backup into a new folder of ``target``; returns the folder.

    Raises
    ------
    LauncherError
        When the database does not run, or does not let itself be read.
    """
    moment = datetime.now(UTC)
    folder = target / f"{moment:%Y-%m-%dT%H-%M-%S}"
    beside = target / f".{folder.name}.part"
    with session.screen.step("Backup") as step:
        postgres = _container(compose, "postgres", must_run=True)
        beside.mkdir(parents=True, mode=0o700)
        try:
            step.update("reading the database")
            dump = ["docker", "exec", postgres, "pg_dump", "--format=custom", "--username=airflow", "airflow"]
            _to_file(session, dump, beside / DATABASE)
            step.update("reading the data" if everything else "reading what of the data cannot be had again")
            pack = ["pack", *(["--everything"] if everything else [])]
            _to_file(session, _keepsakes(compose, pack, read_only=True), beside / DATA)
            _copy_private(session.checkout.env_file, beside / ENV)
            facts = {
                "made": moment.isoformat(timespec="seconds"),
                "everything": everything,
                "sha256": {name: _sha256(beside / name) for name in (DATABASE, DATA, ENV)},
            }
            (beside / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        size = sum(path.stat().st_size for path in folder.iterdir())
        step.done(f"{folder} ({size / 2**20:.1f} MiB)")
    return folder


def restore(session: Session, knobs: Knobs) -> int:
    """Put a server back as a backup has it, on this machine or on a new one.

    Raises
    ------
    UsageError
        When FROM names no backup.
    LauncherError
        When the backup is damaged, or belongs to another server than the ``.env`` that is here.
    """
    chosen = knobs.server.get("FROM", "")
    folder = Path(chosen).expanduser()
    facts = _read_facts(session, chosen, folder)
    with session.only_one("server-restore"):
        _settle_settings(session, folder)
        compose = prepare(session, knobs)
        log = session.checkout.logs / "compose.log"
        with session.screen.step("Restore") as step:
            step.update("stopping Airflow")
            # a container that has the volumes; without --no-deps it would wait for the health of what does not run
            compose.run("up", "--no-start", "--no-deps", "--no-build", "triggerer", log=log)
            stop_airflow(compose, log)
            step.update("starting the database")
            compose.start(step, log, "postgres")
            step.update("reading the database back")
            _restore_database(session, compose, folder / DATABASE)
            step.update("putting the data back")
            unpacked = _restore_data(session, compose, folder / DATA)
            step.update("starting (about a minute)")
            compose.start(step, log)
            step.done(
                f"as of {facts['made']}: database, {unpacked['put back']} files put back,"
                f" {unpacked['there']} were there, {unpacked['to be made again']} will be made again when needed"
            )
    say_where(session, server_settings.load(session.checkout))
    return 0


def _read_facts(session: Session, chosen: str, folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = sorted(path.parent for path in session.checkout.backups.glob(f"*/{FACTS}"))
        newest = f"FROM={there[-1]}" if there else f"none was found in {session.checkout.backups}"
        msg = f"FROM={chosen}: not the folder of a backup ({FACTS} is missing)"
        raise UsageError(msg, f"The newest: {newest}") from None
    for name, expected in facts["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            msg = f"{folder / name} is not what was backed up: it is missing, or its content changed"
            raise LauncherError(msg, "Take another backup. Nothing was changed.")
    return facts


def _settle_settings(session: Session, folder: Path) -> None:
    """Take the backup's ``.env`` where there is none; refuse where the one that is here cannot open the database."""
    env_file = session.checkout.env_file
    if not env_file.exists():
        _copy_private(folder / ENV, env_file)
        session.screen.note("Settings", f"{env_file} put back from the backup; its paths must be this machine's")
        return
    kept = server_settings.read_settings((folder / ENV).read_text(encoding="utf-8"))
    if server_settings.load(session.checkout)["FERNET_KEY"] != kept.get("FERNET_KEY"):
        msg = f"the FERNET_KEY of {env_file} is not the backup's: the connections in its database could not be read"
        raise LauncherError(msg, f"Move {env_file} away to take the backup's, or put its FERNET_KEY there.")


def _restore_database(session: Session, compose: Compose, dump: Path) -> None:
    postgres = _container(compose, "postgres", must_run=True)
    password = server_settings.load(session.checkout)["POSTGRES_PASSWORD"]
    sql = [
        "SET client_min_messages TO warning",
        # the volume may be older than .env
        f"ALTER ROLE airflow PASSWORD '{password.replace(chr(39), chr(39) * 2)}'",
        "DROP DATABASE IF EXISTS airflow WITH (FORCE)",
        "CREATE DATABASE airflow OWNER airflow",
    ]
    psql = ["psql", "--username=airflow", "--dbname=postgres", "--quiet", "--set=ON_ERROR_STOP=1"]
    _from_text(session, ["docker", "exec", "-i", postgres, *psql], ";\n".join([*sql, ""]))
    words = ["pg_restore", "--username=airflow", "--dbname=airflow", "--no-owner", "--exit-on-error"]
    with dump.open("rb") as stdin:
        _run(session, ["docker", "exec", "-i", postgres, *words], stdin=stdin)


def _restore_data(session: Session, compose: Compose, archive: Path) -> dict[str, int]:
    with archive.open("rb") as stdin:
        # as root, since the directory may be new; what is written belongs to Airflow after its next start
        said = _run(session, _keepsakes(compose, ["unpack"], user="0:0"), stdin=stdin)
    return dict(json.loads(said.strip().splitlines()[-1]))


def _keepsakes(compose: Compose, words: Sequence[str], *, read_only: bool = False, user: str = USER) -> list[str]:
    """Give the command that packs or unpacks, in a container with the data directory of Airflow's containers."""
    source = _container(compose, "triggerer")
    return [
        "docker", "run", "--rm", "--interactive", "--network", "none", "--user", user,
        "--volumes-from", f"{source}:ro" if read_only else source,
        "--env", f"NUMERAI_DATA_DIR={compose.settings['NUMERAI_DATA_DIR']}",
        compose.settings["AIRFLOW_IMAGE"], "python", "-m", "server.airflow.keepsakes", *words,
    ]  # fmt: skip


def _container(compose: Compose, service: str, *, must_run: bool = False) -> str:
    for part in compose.parts():
        if part.service == service and (part.state == "running" or not must_run):
            return part.container
    msg = f"the server's service {service} {'does not run' if must_run else 'is not there'}"
    raise LauncherError(msg, "Start it:  make server")


def _run(session: Session, words: Sequence[str], **options: Any) -> str:
    try:
        return session.commands.run(words, timeout=HOURS, **options)
    except CommandError as error:
        msg = f"{' '.join(words[:2])} … {words[-1]} failed"
        raise LauncherError(msg, end_of(error.output, 15)) from None


def _to_file(session: Session, words: Sequence[str], target: Path) -> None:
    with target.open("wb") as stdout:
        os.fchmod(stdout.fileno(), 0o600)
        _run(session, words, stdout=stdout)


def _from_text(session: Session, words: Sequence[str], text: str) -> None:
    with tempfile.TemporaryFile() as stdin:
        stdin.write(text.encode())
        stdin.seek(0)
        _run(session, words, stdin=stdin)


def _copy_private(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(source.read_bytes())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
