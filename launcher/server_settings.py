"""The server's ``.env``: written once, from ``.env.example``, with secrets made up on the spot; never changed again."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import airflow_home
from launcher.errors import LauncherError, UsageError
from numerai_pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.checkout import Checkout

EXAMPLE = ".env.example"
SECRETS = ("POSTGRES_PASSWORD", "FERNET_KEY", "JWT_SECRET", "API_SECRET_KEY", "REDIS_PASSWORD", "ADMIN_PASSWORD")
LOCAL_SOCKET = Path("/var/run/docker.sock")
SUBORDINATE_GROUPS = Path("/etc/subgid")
PASSED_ON = "NUMERAI_"
"""Settings of the pipeline: what of them is set in the shell at the first `make server` goes into .env."""

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_settings(text: str) -> dict[str, str]:
    """Read the lines ``NAME=value`` of a file as Compose does: no quotes, the last of two counts."""
    found = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: match[2].strip() for match in found if match}


def known_settings(checkout: Checkout) -> list[str]:
    """Name all settings: those of ``.env.example``, and the pipeline's own."""
    example = read_settings((checkout.root / EXAMPLE).read_text(encoding="utf-8"))
    return list(dict.fromkeys([*example, *(f"{PASSED_ON}{name.upper()}" for name in Settings.model_fields)]))


def load(checkout: Checkout) -> dict[str, str]:
    """Read the server's settings.

    Raises
    ------
    LauncherError
        When there are none, or one that it cannot do without is empty.
    """
    try:
        settings = read_settings(checkout.env_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"there is no server in this checkout: {checkout.env_file} is not there"
        raise LauncherError(msg, "Set one up:  make server") from None
    needed = (*SECRETS, "COMPOSE_PROJECT_NAME", "AIRFLOW_IMAGE", "NUMERAI_DATA_DIR", "DATA_VOLUME", "DOCKER_GID")
    empty = [name for name in needed if not settings.get(name)]
    if empty:
        msg = f"{checkout.env_file}: {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} not set"
        raise LauncherError(msg, f"{EXAMPLE} says what each is for. A copy of .env is in every backup.")
    quoted = [name for name, value in settings.items() if value[:1] in {'"', "'"} and len(value) > 1]
    if quoted:
        # the two generations of Compose do not agree on what quotes in .env mean
        msg = f"{checkout.env_file}: {', '.join(quoted)}: write the value without quotes"
        raise LauncherError(msg)
    return settings


def write_first(checkout: Checkout, wanted: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Write ``.env``, readable by its owner alone.

    Parameters
    ----------
    checkout
        Where.
    wanted
        Settings given on the command line.
    environment
        The shell's variables; those that ``.env.example`` names, and ``NUMERAI_*``, go into the file.

    Raises
    ------
    FileExistsError
        When there is one already.
    UsageError
        When a value cannot stand in it.
    """
    example = (checkout.root / EXAMPLE).read_text(encoding="utf-8")
    known = read_settings(example)
    chosen = {
        name: value
        for name, value in environment.items()
        if value and (name in known or name.startswith(PASSED_ON)) and name not in SECRETS
    } | dict(wanted)
    for name, value in chosen.items():
        if re.search(r"[\n\r]", value) or value != value.strip() or value[:1] in {'"', "'"}:
            msg = f"{name}={value!r}: a value in .env is one line, without quotes or blanks around it"
            raise UsageError(msg)
    values = known | made_up(checkout, chosen) | chosen
    lines = [_with_value(line, values) for line in example.splitlines()]
    lines += [f"{name}={value}" for name, value in values.items() if name not in known]
    # made with its mode, so that nobody else can read it even for a moment; O_EXCL: never over one that is there
    descriptor = os.open(checkout.env_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write("\n".join(lines) + "\n")
    return load(checkout)


def socket_group(socket: Path) -> int:
    """Give the number of the group that an engine's socket belongs to, as the engine's containers see it."""
    found = socket.stat()
    if found.st_uid == 0:
        return found.st_gid
    try:
        user = pwd.getpwuid(found.st_uid)
    except KeyError:  # a user of another machine's list, who has no groups here
        return 0
    ranges = SUBORDINATE_GROUPS.read_text(encoding="utf-8") if SUBORDINATE_GROUPS.exists() else ""
    return group_within(found.st_gid, user, ranges)


def group_within(group: int, user: pwd.struct_passwd, ranges: str) -> int:
    """Translate a group of the host to what it is within a user's rootless engine.

    Parameters
    ----------
    group : int
        Its number on the host.
    user : pwd.struct_passwd
        Whose engine it is: the user's own group is 0 there.
    ranges : str
        Content of ``/etc/subgid``; the groups that it gives the user are 1 and what follows there, range by range.

    Returns
    -------
    int
        0 as well for a group that the engine does not have.
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


def made_up(checkout: Checkout, chosen: Mapping[str, str]) -> dict[str, str]:
    """Make up secrets, and find out what follows from the machine."""
    project = project_name(checkout)
    data = chosen.get("NUMERAI_DATA_DIR") or str(checkout.root / "server-data")
    port = chosen.get("PORT") or str(airflow_home.choose_port(8080))
    socket = Path(chosen.get("DOCKER_SOCKET") or _socket())
    made: dict[str, Callable[[], str]] = {
        "COMPOSE_PROJECT_NAME": lambda: project,
        "AIRFLOW_IMAGE": lambda: f"numerai-airflow:{project.removeprefix('numerai-')}",
        "SOCKET_PROXY_IMAGE": lambda: f"numerai-socket-proxy:{project.removeprefix('numerai-')}",
        "NUMERAI_DATA_DIR": lambda: data,
        "DATA_VOLUME": lambda: data,
        "DOCKER_SOCKET": lambda: str(socket),
        "DOCKER_GID": lambda: str(socket_group(socket)) if socket.exists() else "0",
        "PORT": lambda: port,
        "BASE_URL": lambda: f"http://{airflow_home.HOST}:{port}",
        "POSTGRES_PASSWORD": lambda: secrets.token_hex(24),
        "FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "JWT_SECRET": lambda: secrets.token_hex(32),
        "API_SECRET_KEY": lambda: secrets.token_hex(32),
        "REDIS_PASSWORD": lambda: secrets.token_hex(24),
        "ADMIN_PASSWORD": lambda: secrets.token_urlsafe(18),
    }
    return {name: make() for name, make in made.items() if name not in chosen}


def project_name(checkout: Checkout) -> str:
    """Name a checkout's server by its path: the same every time, and another for another checkout."""
    return f"numerai-{hashlib.sha256(str(checkout.root).encode()).hexdigest()[:8]}"


def _socket() -> Path:
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else LOCAL_SOCKET


def _with_value(line: str, values: Mapping[str, str]) -> str:
    match = _LINE.fullmatch(line.strip())
    return f"{match[1]}={values[match[1]]}" if match else line
