"""Uploads and submissions of the simulated tournament, and the status of a submission in each round.

Submissions are kept in the season's folder, so that they outlive the server: ``submissions/<model id>/<submission
id>.json`` for each, with the file beside it as ``.csv``.

The statuses are Numerai's (forum.numer.ai/t/introducing-queued-submissions-submission-statuses/6253):

- ``on-time``: the last submission within the round's window; without one, the last that was queued for the round
- ``late``: the last submission after the close of a round that has no on-time submission
- ``queued``: the last submission after the close of the current round, as an entry of the next one. When that opens,
  it becomes ``on-time``, until a newer submission replaces it
- ``none``: the round has no submission

An invalid or missing file is refused when the submission is created, as no status for it is published.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import uuid
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from practice.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd  # type: ignore[import-untyped]

    from practice.accounts import Account, Model
    from practice.season import Season

Kind = Literal["submission", "diagnostics"]
Status = Literal["on-time", "late", "queued", "none"]

LATEST_ROUNDS = 2
"""Default of ``latestNRounds``: rounds before the current one, as in the answer of the forum's post."""
_LARGEST_UPLOAD = 2**30


@dataclass(frozen=True)
class Submission:
    """Valid predictions that were submitted.

    Attributes
    ----------
    id, model_id, filename : str
    round : int
        The round that was current when they came.
    is_late : bool
        Whether that round had closed.
    inserted : str
        When they came by the season's clock, ISO 8601.
    sequence : int
        Position among the model's submissions, starting at 0.
    """

    id: str
    model_id: str
    filename: str
    round: int
    is_late: bool
    inserted: str
    sequence: int

    @property
    def counts_for(self) -> int:
        """The round for which they can be on time: a late submission is queued for the next one."""
        return self.round + self.is_late


@dataclass(frozen=True)
class RoundEntry:
    """The status of a model in a round.

    Attributes
    ----------
    round : int
    status : {"on-time", "late", "queued", "none"}
    submission : Submission or None
        None when the status is ``none``.
    """

    round: int
    status: Status
    submission: Submission | None


@dataclass
class _Upload:
    """A presigned address, and the content that was put to it."""

    kind: Kind
    model_id: str
    content: bytes | None = None


class SubmissionStore:
    """Accounts, uploads, submissions and diagnostics.

    Parameters
    ----------
    season : Season
        Has the rounds; its folder holds the submissions.
    accounts : sequence of Account
        The participants.
    """

    def __init__(self, season: Season, accounts: Sequence[Account] = ()) -> None:
        self.accounts = tuple(accounts)
        self._season = season
        self._folder = season.directory / "submissions"
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        self._diagnostics: dict[str, dict[str, Any]] = {}
        if self.accounts:  # a slow import: now, and not during the first submission
            import_module("numerai_tools.submissions")

    def account(self, authorization: str) -> Account | None:
        """Return the account whose keys are in the header, or None."""
        token = authorization.removeprefix("Token ")
        return next((account for account in self.accounts if account.has_token(token)), None)

    def model(self, model_id: str) -> Model | None:
        """Return a model of any account by its id, or None."""
        return next((model for model in self.models() if model.id == model_id), None)

    def models(self) -> Iterator[Model]:
        """Iterate over the models of all accounts."""
        return (model for account in self.accounts for model in account.models)

    def expect_upload(self, kind: Kind, model: Model, filename: str) -> str:
        """Register an upload; returns the unique name under which its file is to come."""
        stem = re.sub(r"[^A-Za-z0-9_-]", "-", Path(filename).stem)[:60] or "predictions"
        name = f"{stem}-{secrets.token_hex(6)}.csv"
        with self._lock:
            self._uploads[name] = _Upload(kind, model.id)
        return name

    def receive(self, name: str, content: bytes) -> None:
        """Keep the content of an upload.

        Raises
        ------
        KeyError
            The name was not registered.
        ValueError
            The content is too large.
        """
        if len(content) > _LARGEST_UPLOAD:
            msg = f"{len(content)} bytes are too many"
            raise ValueError(msg)
        with self._lock:
            self._uploads[name].content = content

    def uploaded(self, kind: Kind, model: Model, filename: str) -> bytes:
        """Return the content of an upload.

        Raises
        ------
        KeyError
            The name was not registered for this kind and model.
        ValueError
            No content came.
        """
        with self._lock:
            upload = self._uploads[filename]
        if (upload.kind, upload.model_id) != (kind, model.id):
            raise KeyError(filename)
        if upload.content is None:
            msg = f"no file was uploaded as {filename}"
            raise ValueError(msg)
        return upload.content

    def create_submission(self, model: Model, filename: str, *, late: bool = False) -> Submission:
        """Create a submission from an upload.

        Parameters
        ----------
        model : Model
        filename : str
            Name from :meth:`expect_upload`.
        late : bool
            Take it as if the current round had closed.

        Raises
        ------
        KeyError
            The name was not registered for a submission of this model.
        ValueError
            The file is missing or invalid; the text is that of numerai-tools.
        """
        content = self.uploaded("submission", model, filename)
        now, current = self._season.now(), self._season.current_round()
        _validate(content, self._season.live_ids(current.number))
        with self._lock:
            submission = Submission(
                id=str(uuid.uuid4()),
                model_id=model.id,
                filename=filename,
                round=current.number,
                is_late=late or now >= current.closes,
                inserted=now.isoformat(),
                sequence=len(self.submissions(model.id)),
            )
            for suffix, part in ((".csv", content), (".json", json.dumps(asdict(submission), indent=1).encode())):
                with atomic_write(self._folder / model.id / f"{submission.id}{suffix}") as temporary:
                    temporary.write_bytes(part)
        return submission

    def submissions(self, model_id: str) -> list[Submission]:
        """List all submissions of a model, the newest first."""
        files = (self._folder / model_id).glob("*.json")
        found = [Submission(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
        return sorted(found, key=lambda submission: submission.sequence, reverse=True)

    def latest(self, model_id: str, last_rounds: int = LATEST_ROUNDS, *, hide_newest: bool = False) -> list[RoundEntry]:
        """List the status of a model in the current round and those before it, the newest first.

        Parameters
        ----------
        model_id : str
        last_rounds : int
            Rounds before the current one. The next round is listed as well when a submission is queued for it.
        hide_newest : bool
            Leave out the newest submission, as if it were not listed yet.
        """
        submissions = self.submissions(model_id)[hide_newest:]
        current = self._season.current_round().number
        following = _entry(submissions, current + 1, current)
        queued = [following] if following.status == "queued" else []
        recent = range(current, max(current - last_rounds, 1) - 1, -1)
        return queued + [_entry(submissions, number, current) for number in recent]

    def scored(self, model_id: str) -> list[RoundEntry]:
        """List the rounds in which a model is scored, the newest first: those with an on-time or late submission."""
        submissions = self.submissions(model_id)
        current = self._season.current_round().number
        numbers = {number for found in submissions for number in (found.round, found.counts_for) if number <= current}
        return [_entry(submissions, number, current) for number in sorted(numbers, reverse=True)]

    def file(self, submission: Submission) -> Path:
        """Return the path of a submission's file."""
        return self._folder / submission.model_id / f"{submission.id}.csv"

    def add_diagnostics(self, model: Model, result: dict[str, Any]) -> str:
        """Keep a result of diagnostics; returns its id."""
        diagnostics_id = str(uuid.uuid4())
        with self._lock:
            self._diagnostics[diagnostics_id] = {**result, "id": diagnostics_id, "model_id": model.id}
        return diagnostics_id

    def diagnostics(self, model_id: str, diagnostics_id: str | None) -> dict[str, Any] | None:
        """Return a result of diagnostics of a model, the last one without an id, or None."""
        with self._lock:
            found = [
                result
                for name, result in self._diagnostics.items()
                if result["model_id"] == model_id and diagnostics_id in (None, name)
            ]
        return found[-1] if found else None


def _entry(submissions: Sequence[Submission], number: int, current: int) -> RoundEntry:
    """Find the status in a round; ``submissions`` are those of a model, the newest first."""
    counting = next((found for found in submissions if found.counts_for == number), None)
    if counting:
        return RoundEntry(number, "queued" if number > current else "on-time", counting)
    late = next((found for found in submissions if found.round == number), None)
    return RoundEntry(number, "late" if late else "none", late)


def read_predictions(content: bytes) -> pd.DataFrame:
    """Read a CSV of predictions; ids stay text.

    Raises
    ------
    ValueError
        The content is not a CSV.
    """
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(content), dtype={"id": str})
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"not a CSV: {error}"
        raise ValueError(msg) from None


def _validate(content: bytes, live_ids: Sequence[str]) -> None:
    """Check a submission with numerai-tools.

    Raises
    ------
    ValueError
    """
    import pandas as pd
    from numerai_tools.submissions import validate_submission_numerai

    try:
        predictions = read_predictions(content)
        validate_submission_numerai(pd.Series(live_ids), predictions)
        values = predictions.iloc[:, 1].to_numpy(dtype=np.float64)
    except (AssertionError, TypeError) as error:
        raise ValueError(str(error)) from None
    if not ((values > 0) & (values < 1)).all():  # numerai-tools accepts 0 and 1, which the rules exclude
        msg = "invalid_submission_values: values must be between 0 and 1 exclusive"
        raise ValueError(msg)
