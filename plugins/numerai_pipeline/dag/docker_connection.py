"""Connects Airflow's tasks to the Docker engine with the Docker provider's hook: address, TLS and registry login."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.docker.hooks.docker import DockerHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from docker.errors import APIError, DockerException, TLSParameterError

from numerai_pipeline.containers.engine import NoConnectionError, is_connection_error
from numerai_pipeline.containers.engine_connection import EngineConnection
from numerai_pipeline.core.errors import BadInputError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient


# the engine reports a rejected login with status 500 and the words of the registry
_REJECTED_LOGIN = re.compile(r"unauthorized|incorrect username|denied", re.IGNORECASE)


def operator_arguments() -> dict[str, Any]:
    """Return the arguments with which a ``DockerOperator`` connects to the engine of this process's environment."""
    connection = EngineConnection.from_environment()
    return {
        "docker_url": connection.url,
        "tls_ca_cert": connection.certificate_file("ca.pem"),
        "tls_client_cert": connection.certificate_file("cert.pem"),
        "tls_client_key": connection.certificate_file("key.pem"),
        "tls_verify": connection.verify,
    }


def engine_hook() -> DockerHook:
    """Return a hook for the same engine, without a login to a registry."""
    arguments = operator_arguments()
    tls = DockerHook.construct_tls_config(
        ca_cert=arguments["tls_ca_cert"],
        client_cert=arguments["tls_client_cert"],
        client_key=arguments["tls_client_key"],
        verify=arguments["tls_verify"],
    )
    return DockerHook(docker_conn_id=None, base_url=arguments["docker_url"], tls=tls)


def connect(hook: Callable[[], DockerHook]) -> APIClient:
    """Return the connection of a hook, which the hook opens at the first call and keeps.

    Raises
    ------
    BadInputError
        When a certificate or the Airflow connection of the registry login is missing or wrong.
    PipelineError
        When the registry does not answer the login.
    NoConnectionError
        When the engine is unreachable.
    """
    try:
        return hook().api_client
    except TLSParameterError as error:
        msg = f"the certificates for the Docker engine cannot be read (DOCKER_CERT_PATH): {error.msg}"
        raise BadInputError(msg) from None
    except AirflowNotFoundException as error:
        msg = f"the login to the image registry (NUMERAI_DOCKER_CONN_ID) is incomplete: {error}"
        raise BadInputError(msg) from None
    except APIError as error:
        if is_connection_error(error):
            raise
        msg = f"the login to the image registry (NUMERAI_DOCKER_CONN_ID) failed: {error.explanation}"
        raise (BadInputError if _REJECTED_LOGIN.search(msg) else PipelineError)(msg) from None
    except (AirflowException, DockerException) as error:
        raise NoConnectionError(f"{error}{_overridden_ca()}") from error


def _overridden_ca() -> str:
    """Name a variable for which the requests library ignores ``ca.pem`` of ``DOCKER_CERT_PATH``."""
    names = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
    if not names or not EngineConnection.from_environment().verify:
        return ""
    return f" {' and '.join(names)} override ca.pem of DOCKER_CERT_PATH: unset them, or add ca.pem to their file."


@contextmanager
def engine_client() -> Iterator[APIClient]:
    """Open a connection to the engine for the block.

    Raises
    ------
    BadInputError, PipelineError, NoConnectionError
        As :func:`connect`.
    """
    client = connect(engine_hook)
    try:
        yield client
    finally:
        client.close()
