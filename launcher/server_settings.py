"""The server's ``.env``: written once from ``.env.example`` with generated secrets, and never changed afterwards."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import secrets
from pathlib import Path
from typing import IO, TYPE_CHECKING

from launcher import local_airflow
from launcher.errors import LauncherError, UsageError
from numerai_pipeline.core.settings import SETTINGS_FIELDS, machine_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

    Secrets that the command does not need may be missing, as on the machine of a worker; they get a placeholder, since
    Compose requires all variables of the file, also for services that it does not start.
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
    """Write ``.env``, which must not exist, readable only by its owner.

    Parameters
    ----------
    paths
        The checkout.
    wanted
        Settings given on the command line.
    environment
        The shell's variables; the ones in ``.env.example``, and ``NUMERAI_*``, are written to the file.
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
    with private_file(paths.env_file) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    return load(paths)


def private_file(path: Path) -> IO[bytes]:
    """Create a file with its final mode, so that no other user can read it at any time; never overwrites one."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


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
    """Translate a group id of the host to the id within a user's rootless engine; 0 for a group that it does not have.

    The user's group has id 0 there. The groups of the user's ranges in ``ranges``, the content of ``/etc/subgid``, are
    numbered from 1 on, range by range.
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
    host = os.environ.get("DOCKER_HOST", "")
    own_socket = host.removeprefix("unix://") if host.startswith("unix://") else LOCAL_SOCKET
    socket = Path(given.get("DOCKER_SOCKET") or own_socket)
    defaults = {
        "COMPOSE_PROJECT_NAME": project,
        "AIRFLOW_IMAGE": f"numerai-airflow:{project.removeprefix('numerai-')}",
        "SOCKET_PROXY_IMAGE": f"numerai-socket-proxy:{project.removeprefix('numerai-')}",
        "NUMERAI_DATA_DIR": data,
        "DATA_VOLUME": data,
        "DOCKER_SOCKET": str(socket),
        "DOCKER_GID": str(socket_group(socket)) if socket.exists() else "0",
        "AIRFLOW_PARALLELISM": str(
            int(given.get("NUMERAI_CORES") or given.get("MODEL_SLOTS") or machine_cores()) + local_airflow.FURTHER_TASKS
        ),
        "PORT": port,
        "BASE_URL": f"http://{local_airflow.HOST}:{port}",
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "JWT_SECRET": secrets.token_hex(32),
        "API_SECRET_KEY": secrets.token_hex(32),
        "REDIS_PASSWORD": secrets.token_hex(24),
        "ADMIN_PASSWORD": secrets.token_urlsafe(18),
    }
    return {name: text for name, text in defaults.items() if name not in given}


def project_name(paths: ProjectPaths) -> str:
    """Give the project name of a checkout's server: a hash of its path, which differs between checkouts."""
    return f"numerai-{hashlib.sha256(str(paths.root).encode()).hexdigest()[:8]}"


def _with_value(line: str, values: Mapping[str, str]) -> str:
    match = _LINE.fullmatch(line.strip())
    return f"{match[1]}={values[match[1]]}" if match else line
