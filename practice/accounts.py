"""Accounts of a practice season: who may hand in predictions, for which models, and what was handed in.

What was handed in is kept in the season's folder, so that a season can be played over many runs of the server: of each
submission ``submissions/<model id>/<submission id>.json`` and, where a file came with it, ``.csv`` beside it.
"""

from __future__ import annotations

import hmac
import io
import json
import re
import secrets
import threading
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd  # type: ignore[import-untyped]

    from practice.season import Season

Kind = Literal["submission", "diagnostics"]
Status = Literal["success", "failed"]

_NAMESPACE = uuid.UUID("6f2f3c1e-6d0b-4f0e-9a35-4d1a2f6f7d67")
_NAME = r"[A-Za-z0-9_-]+"
_LARGEST_UPLOAD = 2**30


@dataclass(frozen=True)
class Model:
    """A model of an account; submissions are its.

    Attributes
    ----------
    id : str
        A UUID, the same whenever the same account has a model of this name.
    name : str
    """

    id: str
    name: str


@dataclass(frozen=True)
class Account:
    """Somebody who takes part.

    Attributes
    ----------
    public_id, secret_key : str
        The keys, as they stand in the header ``Authorization: Token <public_id>$<secret_key>``.
    models : tuple of Model
    """

    public_id: str
    secret_key: str = field(repr=False)
    models: tuple[Model, ...]

    @classmethod
    def of(cls, keys: str, models: Sequence[str]) -> Account:
        """Make an account of ``PUBLIC:SECRET`` and its models' names.

        Raises
        ------
        ValueError
            When the keys have another form, a name is not one, or occurs twice.
        """
        public_id, colon, secret_key = keys.partition(":")
        if not (colon and public_id and secret_key) or "$" in public_id:
            msg = "an account is PUBLIC:SECRET, with no $ in PUBLIC"
            raise ValueError(msg)
        wrong = [name for name in models if not re.fullmatch(_NAME, name)]
        if wrong or not models or len(set(models)) != len(models):
            msg = f"an account needs models, each of another name of letters, digits, - and _: {','.join(models)!r}"
            raise ValueError(msg)
        return cls(public_id, secret_key, tuple(Model(_model_id(public_id, name), name) for name in models))

    def has_token(self, token: str) -> bool:
        """Whether the header's ``<public_id>$<secret_key>`` is this account's."""
        return hmac.compare_digest(token.encode(), f"{self.public_id}${self.secret_key}".encode())

    def model(self, model_id: str | None) -> Model | None:
        """Give a model by its id; the only one when no id is given, None when there is no such model."""
        if model_id is None:
            return self.models[0] if len(self.models) == 1 else None
        return next((model for model in self.models if model.id == model_id), None)


def _model_id(public_id: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{public_id}/{name}"))


@dataclass(frozen=True)
class Submission:
    """Predictions that were handed in.

    Attributes
    ----------
    id, model_id, filename : str
    round : int
        The round they count for.
    inserted : str
        When they came, ISO 8601.
    status : {"success", "failed"}
        Whether they count.
    message : str
        Why not.
    """

    id: str
    model_id: str
    filename: str
    round: int
    inserted: str
    status: Status
    message: str = ""


@dataclass
class _Upload:
    """An address that was given out, and what came there."""

    kind: Kind
    model_id: str
    content: bytes | None = None


class Desk:
    """Where predictions are handed in.

    Parameters
    ----------
    season : Season
        Whose rounds they are for; what is handed in is kept in its folder.
    accounts : sequence of Account
        Those who may.
    """

    def __init__(self, season: Season, accounts: Sequence[Account] = ()) -> None:
        self.accounts = tuple(accounts)
        self._season = season
        self._folder = season.directory / "submissions"
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        self._diagnosed: dict[str, dict[str, Any]] = {}
        if self.accounts:  # now, and not while the first to hand something in waits
            import_module("numerai_tools.submissions")

    def account(self, authorization: str | None) -> Account | None:
        """Give the account whose keys stand in the header; None when there is none."""
        token = (authorization or "").removeprefix("Token ")
        return next((account for account in self.accounts if account.has_token(token)), None)

    def model(self, model_id: str) -> Model | None:
        """Give anybody's model by its id."""
        return next((model for model in self.models() if model.id == model_id), None)

    def models(self) -> Iterator[Model]:
        """Give everybody's models."""
        return (model for account in self.accounts for model in account.models)

    def expect(self, kind: Kind, model: Model, filename: str) -> str:
        """Get ready for a file; returns the name under which it is to come, which nobody had before."""
        stem = re.sub(r"[^A-Za-z0-9_-]", "-", Path(filename).stem)[:60] or "predictions"
        name = f"{stem}-{secrets.token_hex(6)}.csv"
        with self._lock:
            self._uploads[name] = _Upload(kind, model.id)
        return name

    def receive(self, name: str, content: bytes) -> None:
        """Keep what came for a name that was given out.

        Raises
        ------
        KeyError
            When none was.
        ValueError
            When it is too large.
        """
        if len(content) > _LARGEST_UPLOAD:
            msg = f"{len(content)} bytes are too many"
            raise ValueError(msg)
        with self._lock:
            self._uploads[name].content = content

    def create_submission(
        self, model: Model, filename: str, *, late: bool = False, reject: str | None = None
    ) -> Submission:
        """Take in what came under a name, or note that nothing did: either way there is a submission.

        Parameters
        ----------
        model : Model
        filename : str
            As :meth:`expect` gave it.
        late : bool
            Take it for the round after, as if the present one had closed.
        reject : str, optional
            Refuse it for this reason whatever it is.

        Raises
        ------
        KeyError
            When the name was not given out for a submission of this model.
        """
        content = self._taken("submission", model, filename)
        now = self._season.now()
        current = self._season.current_round()
        number = current.number + (1 if late or now >= current.closes else 0)
        # what comes late is looked at with the ids of the round that it came from, and waits for the next
        finding = reject or _finding(content, self._season.live_ids(current.number))
        submission = Submission(
            id=str(uuid.uuid4()),
            model_id=model.id,
            filename=filename,
            round=number,
            inserted=datetime.now(UTC).isoformat(),
            status="failed" if finding else "success",
            message=finding,
        )
        folder = self._folder / model.id
        folder.mkdir(parents=True, exist_ok=True)
        if content is not None:
            _write(folder / f"{submission.id}.csv", content)
        _write(folder / f"{submission.id}.json", json.dumps(asdict(submission), indent=1).encode())
        return submission

    def submissions(self, model_id: str) -> list[Submission]:
        """Everything that was handed in for a model, the newest first."""
        files = (self._folder / model_id).glob("*.json")
        found = [Submission(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
        return sorted(found, key=lambda submission: submission.inserted, reverse=True)

    def latest(self, model_id: str) -> list[Submission]:
        """Give what was handed in last for each round, the newest round first."""
        newest: dict[int, Submission] = {}
        for submission in self.submissions(model_id):
            newest.setdefault(submission.round, submission)
        return [newest[number] for number in sorted(newest, reverse=True)]

    def counting(self, model_id: str) -> list[Submission]:
        """Give what counts of each round, the newest round first: the last that is valid."""
        newest: dict[int, Submission] = {}
        for submission in self.submissions(model_id):
            if submission.status == "success":
                newest.setdefault(submission.round, submission)
        return [newest[number] for number in sorted(newest, reverse=True)]

    def file(self, submission: Submission) -> Path:
        """Give the path of a submission's file; it is not there when none came."""
        return self._folder / submission.model_id / f"{submission.id}.csv"

    def create_diagnostics(self, model: Model, filename: str) -> str:
        """Take in predictions of validation eras, scored when they are asked for; returns the id to ask with.

        Raises
        ------
        KeyError
            When the name was not given out for diagnostics of this model.
        """
        content = self._taken("diagnostics", model, filename)
        diagnostics_id = str(uuid.uuid4())
        with self._lock:
            self._diagnosed[diagnostics_id] = {"model_id": model.id, "content": content, "at": datetime.now(UTC)}
        return diagnostics_id

    def diagnosed(self, model_id: str, diagnostics_id: str | None) -> dict[str, Any] | None:
        """Give what was handed in for diagnostics (``content``, ``at``), the last one when no id is given."""
        with self._lock:
            found = [
                entry
                for name, entry in self._diagnosed.items()
                if entry["model_id"] == model_id and diagnostics_id in (None, name)
            ]
        return found[-1] if found else None

    def _taken(self, kind: Kind, model: Model, filename: str) -> bytes | None:
        with self._lock:
            upload = self._uploads[filename]
            if (upload.kind, upload.model_id) != (kind, model.id):
                raise KeyError(filename)
            return upload.content


def read_predictions(content: bytes) -> pd.DataFrame:
    """Read a CSV of predictions; ids stay text.

    Raises
    ------
    ValueError
        When it is none.
    """
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(content), dtype={"id": str})
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"not a CSV: {error}"
        raise ValueError(msg) from None


def _finding(content: bytes | None, live_ids: Sequence[str]) -> str:
    """Say what is wrong with a submission, as numerai-tools does; nothing when it is good."""
    import pandas as pd
    from numerai_tools.submissions import validate_submission_numerai

    if content is None:
        return "no file was uploaded"
    try:
        predictions = read_predictions(content)
        validate_submission_numerai(pd.Series(live_ids), predictions)
        values = predictions.iloc[:, 1].to_numpy(dtype=np.float64)
    except (AssertionError, ValueError, TypeError) as error:
        return str(error)
    # numerai-tools lets the ends pass, which the rules do not
    return "" if ((values > 0) & (values < 1)).all() else "values must be between 0 and 1 exclusive"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
