"""Keys of an account at Numerai or at the simulated tournament, loaded where a task runs and never logged.

They come from an Airflow connection of the type ``numerai`` (``provider.py``), or of another type with the public id
as login and the secret key as password: ``numerai_default`` for Numerai, ``numerai_practice`` for the simulated
tournament. For Numerai, the environment variables ``NUMERAI_PUBLIC_ID`` and ``NUMERAI_SECRET_KEY`` serve as well. The
simulated tournament never gets the keys for Numerai.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from numerai_pipeline.core.errors import BadInputError, CredentialsError
from numerai_pipeline.core.settings import load_settings

if TYPE_CHECKING:
    from airflow.sdk import Connection

PUBLIC_ID, SECRET_KEY = "NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY"
CONNECTIONS: dict[str, str] = {"numerai": "numerai_default", "practice": "numerai_practice"}
"""Source of a run → the connection with its keys."""

CONNECTION_TYPE = "numerai"

Keys = tuple[str, str]


def load_credentials(source: Literal["numerai", "practice"]) -> Keys | None:
    """Load the keys of a source and mask them in this process's logs.

    Returns
    -------
    (str, str) or None
        Public id and secret key; None when neither is set.

    Raises
    ------
    CredentialsError
        When only one of the two is set, or the connection is for another API address than the source's.
    """
    keys = _of_connection(source)
    if keys is None and source == "numerai":
        keys = _require_pair(os.environ.get(PUBLIC_ID), os.environ.get(SECRET_KEY), PUBLIC_ID, SECRET_KEY)
    for key in keys or ():
        mask_secret(key)
    return keys


def credentials_hint(source: Literal["numerai", "practice"]) -> str:
    """Describe how to set the keys of a source."""
    connection = (
        f"an Airflow connection {CONNECTIONS[source]} (type Numerai, or generic with the keys as login, password)"
    )
    return f"create {connection}" + (f", or set {PUBLIC_ID} and {SECRET_KEY}" if source == "numerai" else "")


def keys_of(connection: Connection, name: str) -> Keys | None:
    """Return the keys of a connection; None if it has none.

    Parameters
    ----------
    connection : Connection
    name : str
        Of the connection, for errors.

    Raises
    ------
    CredentialsError
        When only one of the two is set.
    """
    return _require_pair(connection.login, connection.password, f"the login of {name}", f"the password of {name}")


def api_address_of(connection: Connection) -> str | None:
    """Return the API address of a connection of the type ``numerai``; None for the address of the settings.

    Raises
    ------
    BadInputError
        When it is not an http or https address.
    """
    address = (connection.host or "").strip().rstrip("/")
    if not address or connection.conn_type != CONNECTION_TYPE:
        return None
    if not re.fullmatch(r"https?://[^\s]+", address):
        msg = f"the API address {address!r} of the connection is not an http or https address: correct or remove it"
        raise BadInputError(msg)
    return address


def _of_connection(source: Literal["numerai", "practice"]) -> Keys | None:
    name = CONNECTIONS[source]
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    address = api_address_of(connection)
    if address is not None and address != load_settings().api_address(source):
        setting = "NUMERAI_API_URL" if source == "numerai" else "NUMERAI_PRACTICE_URL"
        msg = (
            f"the keys of {name} are for {address}, and not for {load_settings().api_address(source)} ({setting}):"
            " correct the API address of the connection, or the setting"
        )
        raise CredentialsError(msg)
    return keys_of(connection, name)


def _require_pair(public_id: str | None, secret_key: str | None, *names: str) -> Keys | None:
    public_id, secret_key = (public_id or "").strip(), (secret_key or "").strip()
    if bool(public_id) != bool(secret_key):
        present, missing = names if public_id else reversed(names)
        msg = f"the Numerai keys are incomplete: {present} is set and {missing} is not; set both"
        raise CredentialsError(msg)
    return (public_id, secret_key) if public_id else None
