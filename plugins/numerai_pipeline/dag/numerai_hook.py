"""The hook of the connection type *Numerai*: a client with the connection's keys, and the form's *Test*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from numerai_pipeline.core.errors import CredentialsError, PipelineError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.credentials import CONNECTION_TYPE, CONNECTIONS, api_address_of, keys_of

if TYPE_CHECKING:
    from numerai_pipeline.numerai_api.client import ApiClient


class NumeraiHook(BaseHook):
    """Connects to Numerai's API, or to a simulated tournament's, with the keys of a connection.

    Parameters
    ----------
    numerai_conn_id : str
        Id of the connection.
    """

    conn_name_attr = "numerai_conn_id"
    default_conn_name = CONNECTIONS["numerai"]
    conn_type = CONNECTION_TYPE
    hook_name = "Numerai"

    def __init__(self, numerai_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.numerai_conn_id = numerai_conn_id

    def get_conn(self) -> ApiClient:
        """Return a client with the connection's keys, for one attempt of each call.

        Raises
        ------
        BadInputError
            When the connection has no keys, half of them, or an invalid address.
        """
        from numerai_pipeline.numerai_api.client import ApiClient
        from numerai_pipeline.numerai_api.retries import RetryPolicy

        connection = self.get_connection(self.numerai_conn_id)
        settings = load_settings()
        keys = keys_of(connection, "the connection")
        if keys is None:
            msg = "the connection has no keys: set its public id and its secret key"
            raise CredentialsError(msg)
        for key in keys:
            mask_secret(key)
        return ApiClient(
            api_address_of(connection) or settings.api_url,
            timeout=settings.http_timeout_seconds,
            policy=RetryPolicy(attempts=1),
            keys=keys,
        )

    def test_connection(self) -> tuple[bool, str]:
        """Check the keys and their scopes; return whether they can submit, and the models or the error."""
        from numerai_pipeline.numerai_api.account import Account

        try:
            client = self.get_conn()
            account = Account(client)
            models = account.models()
            account.check_access()
        except PipelineError as error:
            return False, str(error)
        return True, f"{client.url} accepts the keys; models of the account: {', '.join(models) or 'none'}"
