"""Sign-in to the web UI by an OpenID Connect provider, if ``.env`` names one, or else by password.

See docs/deployment/server.md. Flask-AppBuilder reads it in the service ``api-server``. To configure more, name a copy
by ``WEBSERVER_CONFIG`` in ``.env``.
"""

from __future__ import annotations

import json
import os

from flask_appbuilder.const import AUTH_OAUTH

METADATA_URL = os.environ.get("OIDC_METADATA_URL", "")
# group at the provider → roles of Airflow
ROLES = json.loads(os.environ.get("OIDC_ROLES") or "{}")

if METADATA_URL:
    AUTH_TYPE = AUTH_OAUTH
    # a user's first sign-in creates the user, with the roles of the user's groups
    AUTH_USER_REGISTRATION = True
    AUTH_USER_REGISTRATION_ROLE = os.environ.get("OIDC_DEFAULT_ROLE") or "Public"
    AUTH_ROLES_MAPPING = ROLES
    # without a mapping, roles are those of Airflow's database
    AUTH_ROLES_SYNC_AT_LOGIN = bool(ROLES)
    OAUTH_PROVIDERS = [
        {
            "name": "oidc",
            "icon": "fa-key",
            "token_key": "access_token",
            "remote_app": {
                "client_id": os.environ["OIDC_CLIENT_ID"],
                "client_secret": os.environ["OIDC_CLIENT_SECRET"],
                "server_metadata_url": METADATA_URL,
                "client_kwargs": {"scope": os.environ.get("OIDC_SCOPE") or "openid email profile"},
            },
        }
    ]
