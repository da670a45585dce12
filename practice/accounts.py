"""Accounts of the simulated tournament: keys, the scopes of the keys, and models."""

from __future__ import annotations

import hmac
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

Scope = Literal["upload_submission", "download_submission", "read_submission_info", "read_user_info"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""The scopes that submitting may need, by Numerai's names. Keys have all of them by default."""

_NAMESPACE = uuid.UUID("6f2f3c1e-6d0b-4f0e-9a35-4d1a2f6f7d67")
_NAME = r"[A-Za-z0-9_-]+"


@dataclass(frozen=True)
class Model:
    """A model of an account; submissions belong to a model.

    Attributes
    ----------
    id : str
        A UUID, derived from the account's public id and the name.
    name : str
    """

    id: str
    name: str


@dataclass(frozen=True)
class Account:
    """A participant.

    Attributes
    ----------
    public_id, secret_key : str
        The keys, as in the header ``Authorization: Token <public_id>$<secret_key>``.
    models : tuple of Model
    scopes : tuple of str
        The scopes of the keys.
    """

    public_id: str
    secret_key: str = field(repr=False)
    models: tuple[Model, ...]
    scopes: tuple[Scope, ...] = SCOPES

    @classmethod
    def of(cls, keys: str, models: Sequence[str], scopes: Sequence[str] = SCOPES) -> Account:
        """Make an account from ``PUBLIC:SECRET``, the names of its models and the scopes of its keys.

        Raises
        ------
        ValueError
            The keys have another form, a name is invalid or occurs twice, or a scope is unknown.
        """
        public_id, colon, secret_key = keys.partition(":")
        if not (colon and public_id and secret_key) or "$" in public_id:
            msg = "an account is PUBLIC:SECRET, with no $ in PUBLIC"
            raise ValueError(msg)
        wrong = [name for name in models if not re.fullmatch(_NAME, name)]
        if wrong or not models or len(set(models)) != len(models):
            msg = f"an account needs models with distinct names of letters, digits, - and _: {','.join(models)!r}"
            raise ValueError(msg)
        known = tuple(scope for scope in SCOPES if scope in scopes)
        if unknown := sorted(set(scopes) - set(known)):
            msg = f"unknown scope {', '.join(unknown)}: the scopes are {', '.join(SCOPES)}"
            raise ValueError(msg)
        return cls(public_id, secret_key, tuple(Model(_model_id(public_id, name), name) for name in models), known)

    def has_token(self, token: str) -> bool:
        """Whether the header's ``<public_id>$<secret_key>`` is this account's."""
        return hmac.compare_digest(token.encode(), f"{self.public_id}${self.secret_key}".encode())

    def model(self, model_id: str | None) -> Model | None:
        """Return a model by its id, the account's only model without an id, or None."""
        if model_id is None:
            return self.models[0] if len(self.models) == 1 else None
        return next((model for model in self.models if model.id == model_id), None)


def _model_id(public_id: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{public_id}/{name}"))
