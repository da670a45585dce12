"""The server's ``.env``: written once from ``.env.example`` with generated secrets, and never changed afterwards."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import local_airflow
from launcher.errors import LauncherError, UsageError
from numerai_pipeline.core.settings import SETTINGS_FIELDS, machine_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from launcher.paths import ProjectPaths

EXAMPLE = ".env.example"
SECRETS = ("POSTGRES_PASSWORD", "FERNET_KEY", "JWT_SECRET", "API_SECRET_KEY", "REDIS_PASSWORD", "ADMIN_PASSWORD")
WORKER_SECRETS = ("REDIS_PASSWORD",)
"""The secrets that the machine of a worker needs."""
NO_SECRET = "not-on-this-machine"  # noqa: S105 - a placeholder
LOCAL_SOCKET = Path("/var/run/docker.sock")
SUBORDINATE_GROUPS = Path("/etc/subgid")
PIPELINE_PREFIX = "NUMERAI_"
"""Prefix of the pipeline's settings: their variables in the shell of the first `make server` are written to .env."""

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_settings(text: str) -> dict[str, str]:
    """Read the lines ``NAME=value`` of a file as Compose does: no quotes, the last of duplicates counts."""
    found = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: match[2].strip() for match in found if match}


def known_settings(paths: ProjectPaths) -> list[str]:
    """List all settings: the ones in ``.env.example``, and the pipeline's."""
    example = read_settings((paths.root / EXAMPLE).read_text(encoding="utf-8"))
    return list(dict.fromkeys([*example, *(f"{PIPELINE_PREFIX}{name.upper()}" for name in SETTINGS_FIELDS)]))


def load(paths: ProjectPaths, secrets: Iterable[str] = SECRETS) -> dict[str, str]:
    """Read the server's settings.

    Parameters
    ----------
    paths
        The checkout.
    secrets
        The secrets that the command needs. Others may be missing, as on the machine of a worker; they get a
        placeholder, since Compose requires all variables of the file, also for services that it does not start.

    Raises
    ------
    LauncherError
        When there is no ``.env``, or a required setting is empty.
    """
    try:
        settings = read_settings(paths.env_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"there is no server in this checkout: {paths.env_file} is missing"
        raise LauncherError(msg, "Set one up:  make server") from None
    needed = (*secrets, "COMPOSE_PROJECT_NAME", "AIRFLOW_IMAGE", "NUMERAI_DATA_DIR", "DATA_VOLUME", "DOCKER_GID")
    empty = [name for name in needed if not settings.get(name)]
    if empty:
        msg = f"{paths.env_file}: {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} not set"
        raise LauncherError(msg, f"{EXAMPLE} describes each of them. Every backup has a copy of .env.")
    quoted = [name for name, value in settings.items() if value[:1] in {'"', "'"} and len(value) > 1]
    if quoted:
        # Compose v1 and v2 treat quotes in .env differently
        msg = f"{paths.env_file}: {', '.join(quoted)}: write the value without quotes"
        raise LauncherError(msg)
    return settings | {name: settings.get(name) or NO_SECRET for name in SECRETS}


def create_env_file(paths: ProjectPaths, wanted: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Write ``.env``, readable only by its owner.

    Parameters
    ----------
    paths
        The checkout.
    wanted
        Settings given on the command line.
    environment
        The shell's variables; the ones in ``.env.example``, and ``NUMERAI_*``, are written to the file.

    Raises
    ------
    FileExistsError
        When the file exists.
    UsageError
        When a value has quotes, line ends or blanks around it.
    """
    example = (paths.root / EXAMPLE).read_text(encoding="utf-8")
    known = read_settings(example)
    given = {
        name: value
        for name, value in environment.items()
        if value and (name in known or name.startswith(PIPELINE_PREFIX)) and name not in SECRETS
    } | dict(wanted)
    for name, value in given.items():
        if re.search(r"[\n\r]", value) or value != value.strip() or value[:1] in {'"', "'"}:
            msg = f"{name}={value!r}: a value in .env is one line, without quotes or blanks around it"
            raise UsageError(msg)
    values = known | generated_defaults(paths, given) | given
    lines = [_with_value(line, values) for line in example.splitlines()]
    lines += [f"{name}={value}" for name, value in values.items() if name not in known]
    # created with its final mode, so that no other user can read it; O_EXCL: never overwrites an existing file
    descriptor = os.open(paths.env_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write("\n".join(lines) + "\n")
    return load(paths)


def socket_group(socket: Path) -> int:
    """Give the group id of an engine's socket, as the engine's containers see it."""
    found = socket.stat()
    if found.st_uid == 0:
        return found.st_gid
    try:
        user = pwd.getpwuid(found.st_uid)
    except KeyError:  # a user without an entry on this machine has no groups here
        return 0
    ranges = SUBORDINATE_GROUPS.read_text(encoding="utf-8") if SUBORDINATE_GROUPS.exists() else ""
    return group_within(found.st_gid, user, ranges)


def group_within(group: int, user: pwd.struct_passwd, ranges: str) -> int:
    """Translate a group id of the host to the id within a user's rootless engine.

    Parameters
    ----------
    group : int
        Its id on the host.
    user : pwd.struct_passwd
        The engine's user, whose group has id 0 there.
    ranges : str
        Content of ``/etc/subgid``; the groups of the user's ranges are numbered from 1 on there, range by range.

    Returns
    -------
    int
        Also 0 for a group that the engine does not have.
    """
    before = 1
    for line in ranges.splitlines():
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name not in (user.pw_name, str(user.pw_uid)) or not (first.isdecimal() and count.isdecimal()):
            continue
        if group != user.pw_gid and int(first) <= group < int(first) + int(count):
            return before + group - int(first)
        before += int(count)
    return 0


def generated_defaults(paths: ProjectPaths, given: Mapping[str, str]) -> dict[str, str]:
    """Generate secrets, and detect this machine's settings."""
    project = project_name(paths)
    data = given.get("NUMERAI_DATA_DIR") or str(paths.root / "server-data")
    port = given.get("PORT") or str(local_airflow.choose_port(8080))
    socket = Path(given.get("DOCKER_SOCKET") or _socket())
    defaults: dict[str, Callable[[], str]] = {
        "COMPOSE_PROJECT_NAME": lambda: project,
        "AIRFLOW_IMAGE": lambda: f"numerai-airflow:{project.removeprefix('numerai-')}",
        "SOCKET_PROXY_IMAGE": lambda: f"numerai-socket-proxy:{project.removeprefix('numerai-')}",
        "NUMERAI_DATA_DIR": lambda: data,
        "DATA_VOLUME": lambda: data,
        "DOCKER_SOCKET": lambda: str(socket),
        "DOCKER_GID": lambda: str(socket_group(socket)) if socket.exists() else "0",
        "AIRFLOW_PARALLELISM": lambda: str(
            int(given.get("NUMERAI_CORES") or given.get("MODEL_SLOTS") or machine_cores()) + local_airflow.FURTHER_TASKS
        ),
        "PORT": lambda: port,
        "BASE_URL": lambda: f"http://{local_airflow.HOST}:{port}",
        "POSTGRES_PASSWORD": lambda: secrets.token_hex(24),
        "FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "JWT_SECRET": lambda: secrets.token_hex(32),
        "API_SECRET_KEY": lambda: secrets.token_hex(32),
        "REDIS_PASSWORD": lambda: secrets.token_hex(24),
        "ADMIN_PASSWORD": lambda: secrets.token_urlsafe(18),
    }
    return {name: make() for name, make in defaults.items() if name not in given}


def project_name(paths: ProjectPaths) -> str:
    """Give the project name of a checkout's server: a hash of its path, which differs between checkouts."""
    return f"numerai-{hashlib.sha256(str(paths.root).encode()).hexdigest()[:8]}"


def _socket() -> Path:
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else LOCAL_SOCKET


def _with_value(line: str, values: Mapping[str, str]) -> str:
    match = _LINE.fullmatch(line.strip())
    return f"{match[1]}={values[match[1]]}" if match else line
