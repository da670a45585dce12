"""The keys of an account at Numerai, or at a practice season: found where a task runs, and never told to anybody.

They come from an Airflow connection of the type ``generic`` (login: public id, password: secret key):
``numerai_default`` for Numerai, ``numerai_practice`` for a practice season. For Numerai, the environment variables
``NUMERAI_PUBLIC_ID`` and ``NUMERAI_SECRET_KEY`` will do as well. A practice season never gets the keys for Numerai.
"""

from __future__ import annotations

import os
from typing import Literal

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from numerai_pipeline.errors import CredentialsError

PUBLIC_ID, SECRET_KEY = "NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY"
CONNECTIONS: dict[str, str] = {"numerai": "numerai_default", "practice": "numerai_practice"}
"""Source of a run → the connection with its keys."""

Keys = tuple[str, str]


def find_keys(source: Literal["numerai", "practice"]) -> Keys | None:
    """Find the keys for a source; whatever is found is masked in this process's logs from then on.

    Returns
    -------
    (str, str) or None
        Public id and secret key; None when there are none.

    Raises
    ------
    CredentialsError
        When only one of the two is there.
    """
    keys = _of_connection(CONNECTIONS[source])
    if keys is None and source == "numerai":
        keys = _both(os.environ.get(PUBLIC_ID), os.environ.get(SECRET_KEY), PUBLIC_ID, SECRET_KEY)
    for key in keys or ():
        mask_secret(key)
    return keys


def where_to_put_keys(source: Literal["numerai", "practice"]) -> str:
    """Say what to do for there to be keys."""
    connection = f"an Airflow connection {CONNECTIONS[source]} (generic; login: public id, password: secret key)"
    return f"make {connection}" + (f", or set {PUBLIC_ID} and {SECRET_KEY}" if source == "numerai" else "")


def _of_connection(name: str) -> Keys | None:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    return _both(connection.login, connection.password, f"the login of {name}", f"the password of {name}")


def _both(public_id: str | None, secret_key: str | None, *names: str) -> Keys | None:
    public_id, secret_key = (public_id or "").strip(), (secret_key or "").strip()
    if bool(public_id) != bool(secret_key):
        there, missing = names if public_id else reversed(names)
        msg = f"of the Numerai keys, {there} is there and {missing} is not: both are needed"
        raise CredentialsError(msg)
    return (public_id, secret_key) if public_id else None
