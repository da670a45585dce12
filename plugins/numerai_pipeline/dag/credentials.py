"""Keys of an account at Numerai or at the simulated tournament, loaded where a task runs and never logged.

They come from an Airflow connection of the type ``generic`` (login: public id, password: secret key):
``numerai_default`` for Numerai, ``numerai_practice`` for the simulated tournament. For Numerai, the environment
variables ``NUMERAI_PUBLIC_ID`` and ``NUMERAI_SECRET_KEY`` serve as well. The simulated tournament never gets the keys
for Numerai.
"""

from __future__ import annotations

import os
from typing import Literal

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from numerai_pipeline.core.errors import CredentialsError

PUBLIC_ID, SECRET_KEY = "NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY"
CONNECTIONS: dict[str, str] = {"numerai": "numerai_default", "practice": "numerai_practice"}
"""Source of a run → the connection with its keys."""

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
        When only one of the two is set.
    """
    keys = _of_connection(CONNECTIONS[source])
    if keys is None and source == "numerai":
        keys = _require_pair(os.environ.get(PUBLIC_ID), os.environ.get(SECRET_KEY), PUBLIC_ID, SECRET_KEY)
    for key in keys or ():
        mask_secret(key)
    return keys


def credentials_hint(source: Literal["numerai", "practice"]) -> str:
    """Describe how to set the keys of a source."""
    connection = f"an Airflow connection {CONNECTIONS[source]} (generic; login: public id, password: secret key)"
    return f"create {connection}" + (f", or set {PUBLIC_ID} and {SECRET_KEY}" if source == "numerai" else "")


def _of_connection(name: str) -> Keys | None:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    return _require_pair(connection.login, connection.password, f"the login of {name}", f"the password of {name}")


def _require_pair(public_id: str | None, secret_key: str | None, *names: str) -> Keys | None:
    public_id, secret_key = (public_id or "").strip(), (secret_key or "").strip()
    if bool(public_id) != bool(secret_key):
        present, missing = names if public_id else reversed(names)
        msg = f"the Numerai keys are incomplete: {present} is set and {missing} is not; set both"
        raise CredentialsError(msg)
    return (public_id, secret_key) if public_id else None
