"""``make server-backup`` and ``make server-restore``: database, secrets, and the irreplaceable part of the data.

A backup is a folder, readable only by its owner::

    backups/<time>/
        database.dump   the output of pg_dump, in its compressed format
        data.tar.gz     runs, their results and fits, submissions (DATA=1: all files)
        env             the .env of that time: without its Fernet key the connections cannot be read
        backup.json     metadata, and each file's SHA-256
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import server_settings
from launcher.errors import LauncherError, UsageError
from launcher.processes import CommandError, tail
from launcher.server import load_server, server_session, stop_airflow

if TYPE_CHECKING:
    from launcher.compose import Compose
    from launcher.context import CommandContext
    from launcher.options import BackupOptions, RestoreOptions

DATABASE, DATA, ENV, METADATA = "database.dump", "data.tar.gz", "env", "backup.json"
TIMEOUT_SECONDS = 6 * 3600.0


def backup(context: CommandContext, options: BackupOptions) -> int:
    """Back up a running server."""
    compose = load_server(context)
    with context.lifecycle("server-backup", options):
        target = (options.target or context.paths.backups).expanduser()
        create_backup(context, compose, target, everything=options.everything)
    return 0


def create_backup(context: CommandContext, compose: Compose, target: Path, *, everything: bool) -> Path:
    """Write a backup to a new folder in ``target``; returns the folder."""
    time = datetime.now(UTC)
    folder = target / f"{time:%Y-%m-%dT%H-%M-%S}"
    partial = target / f".{folder.name}.part"
    with context.screen.step("Backup") as step:
        postgres = _container(compose, "postgres", must_run=True)
        partial.mkdir(parents=True, mode=0o700)
        try:
            step.update("reading the database")
            with server_settings.private_file(partial / DATABASE) as stdout:
                dump = "pg_dump", "--format=custom", "--username=airflow", "airflow"
                _run(context, "docker", "exec", postgres, *dump, stdout=stdout)
            step.update("reading the data" if everything else "reading the irreplaceable data")
            with server_settings.private_file(partial / DATA) as stdout:
                pack = ["pack", *(["--everything"] if everything else [])]
                _run_data_backup(context, compose, *pack, read_only=True, stdout=stdout)
            with server_settings.private_file(partial / ENV) as copy:
                copy.write(context.paths.env_file.read_bytes())
            metadata = {
                "made": time.isoformat(timespec="seconds"),
                "everything": everything,
                "sha256": {name: _sha256(partial / name) for name in (DATABASE, DATA, ENV)},
            }
            (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        size = sum(path.stat().st_size for path in folder.iterdir())
        step.done(f"{folder} ({size / 2**20:.1f} MiB)")
    return folder


def restore(context: CommandContext, options: RestoreOptions) -> int:
    """Restore a server from a backup, on this machine or on a new one."""
    folder = Path(options.backup).expanduser()
    metadata = _read_metadata(context, options.backup, folder)
    with (
        server_session(context, options, "server-restore", lambda: _restore_settings(context, folder)) as compose,
        context.screen.step("Restore") as step,
    ):
        step.update("stopping Airflow")
        # a container that has the volumes; without --no-deps it would wait for the health of stopped services
        compose.run("up", "--no-start", "--no-deps", "--no-build", "triggerer", log=True)
        stop_airflow(compose)
        step.update("starting the database")
        compose.start(step, "postgres")
        step.update("restoring the database")
        _restore_database(context, compose, folder / DATABASE)
        step.update("restoring the data")
        with (folder / DATA).open("rb") as stdin:
            # as root, since the directory may be new; Airflow's next start changes the owner
            output = _run_data_backup(context, compose, "unpack", user="0:0", stdin=stdin)
        unpacked = dict(json.loads(output.strip().splitlines()[-1]))
        step.update("starting (about a minute)")
        compose.start(step)
        step.done(
            f"as of {metadata['made']}: database, {unpacked['restored']} files restored,"
            f" {unpacked['existing']} existed, {unpacked['to be computed']} will be computed when needed"
        )
    return 0


def _read_metadata(context: CommandContext, given: str, folder: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = sorted(path.parent for path in context.paths.backups.glob(f"*/{METADATA}"))
        newest = f"FROM={found[-1]}" if found else f"none was found in {context.paths.backups}"
        msg = f"FROM={given}: not the folder of a backup ({METADATA} is missing)"
        raise UsageError(msg, f"The newest: {newest}") from None
    for name, expected in metadata["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            msg = f"{folder / name} does not match its SHA-256: it is missing, or its content changed"
            raise LauncherError(msg, "Choose another backup. Nothing was changed.")
    return metadata


def _restore_settings(context: CommandContext, folder: Path) -> dict[str, str]:
    """Restore the backup's ``.env`` if there is none; raise if the present one cannot open the database."""
    env_file, saved = context.paths.env_file, (folder / ENV).read_text(encoding="utf-8")
    if not env_file.exists():
        with server_settings.private_file(env_file) as file:
            file.write(saved.encode())
        message = f"{env_file} restored from the backup; check that its paths exist on this machine"
        context.screen.note("Settings", message)
    settings = server_settings.load(context.paths)
    if settings["FERNET_KEY"] != server_settings.read_settings(saved).get("FERNET_KEY"):
        raise LauncherError(
            f"the FERNET_KEY of {env_file} differs from the backup's: the connections in its database cannot be read",
            f"Move {env_file} away to restore the backup's, or copy the FERNET_KEY of the backup into it.",
        )
    return settings


def _restore_database(context: CommandContext, compose: Compose, dump: Path) -> None:
    postgres = _container(compose, "postgres", must_run=True)
    password = compose.settings["POSTGRES_PASSWORD"].replace("'", "''")
    sql = [
        "SET client_min_messages TO warning",
        # the volume may be older than .env
        f"ALTER ROLE airflow PASSWORD '{password}'",
        "DROP DATABASE IF EXISTS airflow WITH (FORCE)",
        "CREATE DATABASE airflow OWNER airflow",
    ]
    psql = ["psql", "--username=airflow", "--dbname=postgres", "--quiet", "--set=ON_ERROR_STOP=1"]
    with tempfile.TemporaryFile() as stdin:
        stdin.write(";\n".join([*sql, ""]).encode())
        stdin.seek(0)
        _run(context, "docker", "exec", "-i", postgres, *psql, stdin=stdin)
    pg_restore = ["pg_restore", "--username=airflow", "--dbname=airflow", "--no-owner", "--exit-on-error"]
    with dump.open("rb") as stdin:
        _run(context, "docker", "exec", "-i", postgres, *pg_restore, stdin=stdin)


def _run_data_backup(
    context: CommandContext,
    compose: Compose,
    *command: str,
    read_only: bool = False,
    user: str = "50000:50000",
    **streams: Any,
) -> str:
    """Pack or unpack the data directory, in a container with the volumes of Airflow's."""
    source = _container(compose, "triggerer")
    return _run(
        context,
        "docker", "run", "--rm", "--interactive", "--network", "none", "--user", user,
        "--volumes-from", f"{source}:ro" if read_only else source,
        "--env", f"NUMERAI_DATA_DIR={compose.settings['NUMERAI_DATA_DIR']}",
        "--env", "PYTHONPATH=/opt/numerai:/opt/numerai/plugins",
        compose.settings["AIRFLOW_IMAGE"], "python", "-m", "server.airflow.data_backup", *command,
        **streams,
    )  # fmt: skip


def _container(compose: Compose, service: str, *, must_run: bool = False) -> str:
    for status in compose.service_statuses():
        if status.service == service and (status.state == "running" or not must_run):
            return status.container
    msg = f"the server's service {service} {'does not run' if must_run else 'has no container'}"
    raise LauncherError(msg, "Start it:  make server")


def _run(context: CommandContext, *command: str, **streams: Any) -> str:
    try:
        return context.commands.run(command, timeout=TIMEOUT_SECONDS, **streams)
    except CommandError as error:
        msg = f"{' '.join(command[:2])} … {command[-1]} failed"
        raise LauncherError(msg, tail(error.output, 15)) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
