"""The connection type *Numerai*, as Airflow's web UI finds it.

Airflow does not take connection types from plugins: it looks for distributions with the entry point
``apache_airflow_provider`` on ``sys.path``. ``plugins/numerai_airflow_provider-<version>.dist-info`` is one, without
an installation. Airflow searches before it adds its plugins folder to ``sys.path``, so ``PYTHONPATH`` must have it.

Each process of Airflow calls this at its start. It imports nothing, since an error here would hide every provider.
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Describe the connection type and its form: the fields are Airflow's, with other names, and the rest is hidden."""
    return {
        "package-name": "numerai-airflow-provider",
        "name": "Numerai",
        "description": "The keys of an account at Numerai, or at the simulated tournament.",
        "connection-types": [
            {
                "connection-type": "numerai",
                "hook-name": "Numerai",
                "hook-class-name": "numerai_pipeline.dag.numerai_hook.NumeraiHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port", "extra"],
                    "relabeling": {"login": "Public id", "password": "Secret key", "host": "API address"},
                    "placeholders": {
                        "login": "from the account page of numer.ai",
                        "host": "optional: NUMERAI_API_URL; for a simulated tournament, NUMERAI_PRACTICE_URL",
                    },
                },
            }
        ],
    }
