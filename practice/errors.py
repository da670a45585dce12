"""The errors that the simulator answers.

Numerai's texts come from published answers, which ``tests/recorded`` holds; a test compares them. For a situation
without a published answer the text begins with ``simulator:``, so that no client takes it for one of Numerai's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphql import GraphQLError

if TYPE_CHECKING:
    from practice.accounts import Scope


class KeysRefusedError(GraphQLError):
    """The keys are missing or unknown.

    Numerai's answer has the keys ``error`` and ``code`` where GraphQL has ``message``.

    Parameters
    ----------
    text, code : str
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class SimulatorError(GraphQLError):
    """A refusal for which no answer of Numerai's is published; its text begins with ``simulator:``."""

    def __init__(self, text: str) -> None:
        super().__init__(f"simulator: {text}")


def session_not_found() -> KeysRefusedError:
    """Answer keys that no account has: revoked, rotated or mistyped."""
    return KeysRefusedError("Session not found", "session_not_found")


def not_authenticated() -> KeysRefusedError:
    """Answer a query that needs keys and has none."""
    return KeysRefusedError("Not authenticated", "not_authenticated")


def missing_scope(scope: Scope) -> GraphQLError:
    """Answer a query whose keys lack a scope."""
    return GraphQLError(f"Insufficient permission for {scope}")


def formatted_error(error: GraphQLError) -> dict[str, Any]:
    """Format an error as it appears in the list ``errors`` of an answer."""
    original = error.original_error
    if isinstance(original, KeysRefusedError):
        return {"error": original.message, "code": original.code, "path": error.path}
    return dict(error.formatted)
