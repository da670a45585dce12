"""Uploads and confirmations of a run's submissions, with one record for each slot.

A slot is a model at Numerai in a round of a source; its record is ``submissions/<source>/<round>/<model id>.json`` on
the data volume. The run's directory has the uploaded file, ``submissions/<model at Numerai>.csv``, and a copy of the
record. A run works on a slot under its lock. It confirms the same predictions of another run, replaces its own
submission, and replaces other predictions of another run only with the parameter ``replace``.

All files are uploaded before any is confirmed, and a record is written as soon as the server has the file, so that

- a killed task never uploads a file twice: the next attempt finds the submission by its id or file name;
- a model whose upload fails, or whose slot another run works on, does not delay the others;
- attempts go on until the round closes, despite all errors until then.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from numerai_pipeline.core.errors import (
    BadInputError,
    CredentialsError,
    NotFoundError,
    PipelineError,
    RoundClosedError,
    SubmissionError,
)
from numerai_pipeline.core.round_calendar import next_opening
from numerai_pipeline.core.stables import DEFAULT_STABLE, dag_id
from numerai_pipeline.numerai_api.account import LATE, NONE, ON_TIME, QUEUED
from numerai_pipeline.numerai_api.retries import TRANSIENT, RetryPolicy
from numerai_pipeline.numerai_api.submission_files import LIVE, VALIDATION, read_ids, write_submission
from numerai_pipeline.storage.locks import file_lock, lock_path
from numerai_pipeline.storage.manifests import atomic_path, discard, file_sha256, verified_manifest, write_manifest
from numerai_pipeline.storage.used_objects import RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa

    from numerai_pipeline.numerai_api.account import Account, SubmissionEntry
    from numerai_pipeline.numerai_api.submission_files import RunPredictions
    from numerai_pipeline.numerai_api.tournament import Tournament
    from numerai_pipeline.storage.layout import RunLayout

log = logging.getLogger(__name__)

UPLOADING, UPLOADED = "uploading", "uploaded"
"""Statuses of a record before Numerai lists the submission: the file is there; its submission is created."""
_POLL_SECONDS = (0.5, 30.0)
"""Seconds between two queries of the status: doubling from the first to the last."""
_LOCK_SECONDS = 2.0
"""Seconds between two attempts to take a slot that another run works on."""
_DELAY_AFTER_CLOSE_SECONDS = 600.0
"""Longest delay between two attempts once the round is closed, when minutes no longer matter."""

_TRANSIENT = (*TRANSIENT, NotFoundError)
"""Errors of a query after which another one can succeed: during an outage Numerai's own files were missing."""

Late = Literal["queue", "refuse"]


def submission_deadline(closes: datetime | None, late: Late) -> datetime | None:
    """Give the moment until which attempts to submit go on: the round's close, or the next opening after it.

    Parameters
    ----------
    closes : datetime or None
        The round's close, where it is known.
    late : {"queue", "refuse"}
        Whether submissions after the close are queued for the next round.
    """
    return next_opening(closes) if closes and late == "queue" else closes


@dataclass(frozen=True)
class SubmissionRecord:
    """Outcome of one upload.

    Attributes
    ----------
    model : str
        The model or ensemble whose predictions were uploaded.
    key : str
        Key of the result with these predictions.
    sha256 : str
        Of the uploaded file.
    requested_round : int
        The run's round.
    account_model : str
        Id of the model at Numerai.
    filename : str
        The file's name at Numerai.
    status : str
        ``uploading``, ``uploaded``, or Numerai's status.
    at : str
        When the status was known, ISO 8601.
    submission : str, optional
        Numerai's id of the submission; None until it is known.
    round : int, optional
        The round that Numerai accepted it for, a later one after the close; None until it is confirmed.
    run_id, dag : str, optional
        The run that uploaded it, and its DAG. A record of an earlier release has no DAG.
    numerai_model : str, optional
        Name of the model at Numerai.
    """

    model: str
    key: str
    sha256: str
    requested_round: int
    account_model: str
    filename: str
    status: str
    at: str
    submission: str | None = None
    round: int | None = None
    run_id: str | None = None
    dag: str | None = None
    numerai_model: str | None = None

    @property
    def run(self) -> RunRef:
        """The run that uploaded it; that of an earlier release belongs to the only DAG of that release."""
        return RunRef(self.dag or dag_id(DEFAULT_STABLE), self.run_id or "unknown")

    @property
    def is_late(self) -> bool:
        """Whether the submission came after the close of the run's round."""
        return self.status in {LATE, QUEUED} or self.round not in {None, self.requested_round}


@dataclass
class _Slot:
    """A model at Numerai, its file, and the state of its submission."""

    name: str
    predictions: RunPredictions
    model_id: str
    record_path: Path
    copy_path: Path
    file: Path
    sha256: str
    next_at: datetime
    """When the next upload attempt or query of its status is due."""
    confirm_by: datetime
    """Until when Numerai must list the submission."""
    record: SubmissionRecord | None = None
    error: PipelineError | None = None
    failed_attempts: int = 0
    polls: int = 0
    lock: ExitStack = field(default_factory=ExitStack)
    is_taken: bool = False
    """Whether this process has the lock, and the run may submit here."""
    is_checked_again: bool = False
    """Whether a submission of another run, which was confirmed before, is confirmed again."""

    @property
    def is_waiting(self) -> bool:
        return self.error is None and not self.is_taken

    @property
    def is_missing(self) -> bool:
        return self.error is None and self.is_taken and (self.record is None or self.record.submission is None)

    @property
    def is_unconfirmed(self) -> bool:
        record = self.record
        return self.error is None and record is not None and record.submission is not None and record.round is None

    @property
    def is_open(self) -> bool:
        return self.is_waiting or self.is_missing or self.is_unconfirmed

    def save(self, record: SubmissionRecord) -> None:
        self.record = record
        _write(self.record_path, asdict(record))
        _write(self.copy_path, asdict(record))

    def forget(self) -> None:
        self.record = None
        discard(self.record_path)
        discard(self.copy_path)


class SubmissionBatch:
    """All submissions of a run of a round.

    Parameters
    ----------
    account : Account
    tournament : Tournament
    layout : RunLayout
        The run's directory.
    run : RunRef
        The run.
    source : {"numerai", "practice"}
        Its source.
    round_number : int
        Its round.
    closes : datetime, optional
        The round's close; read from the server when left out.
    late : {"queue", "refuse"}
        What to do after the close: upload, so that Numerai queues the submission for the next round, or fail.
    confirmation_seconds : float
        Seconds after an upload, or after the end of an outage, within which Numerai must list the submission.
    replace_others : bool
        Whether other predictions that another run submitted are replaced. The same predictions are never uploaded
        again, unless Numerai lists another submission instead.
    policy : RetryPolicy, optional
        Attempts and delays of an upload. Its deadline is replaced: attempts go on until the round closes or, where late
        submissions are queued, until the next round opens.
    """

    def __init__(
        self,
        account: Account,
        tournament: Tournament,
        layout: RunLayout,
        run: RunRef,
        source: Literal["numerai", "practice"],
        round_number: int,
        *,
        closes: datetime | None = None,
        late: Late = "queue",
        confirmation_seconds: float = 600.0,
        replace_others: bool = False,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._account = account
        self._tournament = tournament
        self._layout = layout
        self._run = run
        self._source = source
        self._round = round_number
        self._late = late
        self._confirmation = timedelta(seconds=confirmation_seconds)
        self._replace_others = replace_others
        self._policy = policy or RetryPolicy()
        self._clock = self._policy.clock
        self._set_close(closes)

    def submit(
        self, chosen: Mapping[str, RunPredictions]
    ) -> tuple[dict[str, SubmissionRecord], dict[str, PipelineError]]:
        """Upload all, then confirm all.

        Parameters
        ----------
        chosen : mapping
            Model at Numerai → the predictions that it gets.

        Returns
        -------
        records : dict
            Model at Numerai → record of its confirmed submission.
        errors : dict
            Model at Numerai → the reason why it has none.

        Raises
        ------
        CredentialsError
            When the keys are refused or lack a scope; the message names the submissions that were uploaded before.
        PipelineError
            When the account's models cannot be listed.
        """
        self._account.models()  # refused keys fail here, once
        live_ids = read_ids(self._layout.live, LIVE)
        errors: dict[str, PipelineError] = {}
        slots = []
        for name, predictions in chosen.items():
            try:
                slots.append(self._slot(name, predictions, live_ids))
            except BadInputError as error:
                log.error("%s: %s", name, error)  # noqa: TRY400 - the message is complete
                errors[name] = error
        try:
            self._upload_and_confirm(slots)
        except CredentialsError as error:
            uploaded = [
                f"{slot.name} ({slot.record.submission})" for slot in slots if slot.record and slot.is_unconfirmed
            ]
            if not uploaded:
                raise
            msg = f"uploaded, but not confirmed: {', '.join(uploaded)}. {error}"
            raise CredentialsError(msg) from None
        finally:
            for slot in slots:
                slot.lock.close()
        errors |= {slot.name: slot.error for slot in slots if slot.error}
        return {slot.name: slot.record for slot in slots if slot.record and not slot.error}, errors

    def _slot(self, name: str, predictions: RunPredictions, live_ids: pa.StringArray) -> _Slot:
        model_id = self._account.model_id(name)
        file = write_submission(predictions.live, self._layout.submission(name), live_ids)
        now = self._clock()
        return _Slot(
            name,
            predictions,
            model_id,
            self._layout.data.submission_slot(self._source, self._round, model_id),
            self._layout.submission_record(name),
            file,
            file_sha256(file),
            next_at=now,
            confirm_by=now + self._confirmation,
        )

    def _upload_and_confirm(self, slots: Sequence[_Slot]) -> None:
        while True:
            now = self._clock()
            for slot in slots:
                if slot.is_waiting and slot.next_at <= now:
                    self._take(slot)
            self._upload([slot for slot in slots if slot.is_missing and slot.next_at <= now])
            self._confirm([slot for slot in slots if slot.is_unconfirmed and slot.next_at <= self._clock()])
            open_slots = [slot for slot in slots if slot.is_open]
            for slot in slots:
                if slot not in open_slots:
                    slot.lock.close()  # another run may wait for it
            if not open_slots:
                return
            pause = min(slot.next_at for slot in open_slots) - self._clock()
            self._policy.sleep(max(pause.total_seconds(), 0.0))

    def _take(self, slot: _Slot) -> None:
        """Take the lock of a slot, and decide whether the run may submit there; without the lock, try again later."""
        with ExitStack() as lock:
            if not lock.enter_context(file_lock(lock_path(slot.record_path))):
                log.info("%s: another run is submitting for it; waiting", slot.name)
                slot.next_at = self._clock() + timedelta(seconds=_LOCK_SECONDS)
                return
            try:
                slot.record = self._usable_record(slot)
            except CredentialsError:
                raise
            except _TRANSIENT as error:
                self._postpone(slot, error)
                return
            except BadInputError as error:
                self._fail(slot, error)
                return
            slot.is_taken = True
            slot.lock = lock.pop_all()

    def _usable_record(self, slot: _Slot) -> SubmissionRecord | None:
        """Return the record of the same predictions; None if the run may upload its own.

        Raises
        ------
        BadInputError
            When another run has submitted other predictions, and must not be replaced.
        RoundClosedError
            When, in this case, the round is closed.
        """
        record = _read(slot.record_path) or self._record_of_earlier_release(slot)
        if record is None:
            return None
        is_own = record.run == self._run
        if record.sha256 == slot.sha256:
            slot.save(record)
            log.info("%s: submitted before as %s: %s at %s", slot.name, record.submission, record.status, record.at)
            # the other run's submission may have been replaced since, such as by hand
            slot.is_checked_again = self._replace_others and not is_own and record.round is not None
            return replace(record, round=None) if slot.is_checked_again else record
        if is_own:
            log.info("%s: replacing the run's submission %s", slot.name, record.submission)
            return None
        if record.submission is None:  # the other run was killed: only the server knows whether it has submitted
            created = {entry.filename: entry.submission for entry in self._account.latest_submissions()}
            record = replace(record, submission=created.get(record.filename))
        if record.submission is None:
            return None
        described = f"submission {record.submission} ({record.model}) of the run {record.run.dag}/{record.run.run}"
        if self._replace_others:
            log.warning("%s: replacing %s", slot.name, described)
            return None
        self._require_open()  # otherwise that is the reason, and `replace` is no remedy
        msg = (
            f"round {self._round} has {described}, which has other predictions: nothing was uploaded. To replace it,"
            " start a run with the parameter 'replace' (REPLACE=1)"
        )
        raise BadInputError(msg)

    def _record_of_earlier_release(self, slot: _Slot) -> SubmissionRecord | None:
        """Return the newest record of the release before, which had them in the runs. Removed in the next release."""
        path = slot.copy_path.relative_to(self._layout.directory)
        known = []
        for directory in self._layout.directory.parent.glob("[!.]*"):
            record = _read(directory / path)
            # without an id, another run was killed while it uploaded
            is_known = record and (record.submission or directory == self._layout.directory)
            if record and is_known and record.dag is None and record.account_model == slot.model_id:
                known.append((record.at, (directory / path).stat().st_mtime_ns, record))
        return max(known, key=lambda each: each[:2])[-1] if known else None

    def _upload(self, slots: Sequence[_Slot]) -> None:
        if not slots or not self._can_upload(slots):
            return
        self._find_created([slot for slot in slots if slot.record])
        for slot in slots:
            if not slot.is_missing or slot.next_at > self._clock():  # found by its file name, or postponed
                continue
            try:
                self._upload_slot(slot)
            except CredentialsError:
                raise
            except BadInputError as error:
                self._fail(slot, error)
            except TRANSIENT as error:
                self._postpone(slot, error)

    def _can_upload(self, slots: Sequence[_Slot]) -> bool:
        """Check the round; on failure, all slots fail or are postponed."""
        try:
            self._require_open()
        except RoundClosedError as error:
            for slot in slots:
                self._fail(slot, error)
            return False
        except _TRANSIENT as error:
            for slot in slots:
                self._postpone(slot, error)
            return False
        return True

    def _upload_slot(self, slot: _Slot) -> None:
        filename = self._account.upload_file(slot.model_id, slot.file)
        record = SubmissionRecord(
            model=slot.predictions.model,
            key=slot.predictions.key,
            sha256=slot.sha256,
            requested_round=self._round,
            account_model=slot.model_id,
            filename=filename,
            status=UPLOADING,
            at=self._timestamp(),
            run_id=self._run.run,
            dag=self._run.dag,
            numerai_model=slot.name,
        )
        # before the submission exists: an attempt that is killed now finds it by the file's name
        slot.save(record)
        self._uploaded(slot, record, self._account.create_submission(slot.model_id, filename))

    def _uploaded(self, slot: _Slot, record: SubmissionRecord, submission: str) -> None:
        slot.save(replace(record, submission=submission, status=UPLOADED, at=self._timestamp()))
        slot.next_at = self._clock()
        slot.confirm_by = slot.next_at + self._confirmation
        log.info("%s: uploaded the predictions of %s as submission %s", slot.name, slot.predictions.model, submission)

    def _find_created(self, slots: Sequence[_Slot]) -> None:
        """Find submissions that the server created although the reply, or the task that waited for it, was lost."""
        if not slots:
            return
        try:
            created = {entry.filename: entry.submission for entry in self._account.latest_submissions()}
        except _TRANSIENT as error:
            for slot in slots:
                self._postpone(slot, error)
            return
        for slot in slots:
            submission = created.get(slot.record.filename) if slot.record else None
            if slot.record and submission:
                self._uploaded(slot, slot.record, submission)

    def _confirm(self, slots: Sequence[_Slot]) -> None:
        if not slots:
            return
        try:
            entries = self._account.latest_submissions()
        except _TRANSIENT as error:
            now, deadline = self._clock(), self._policy.deadline
            for slot in slots:
                if deadline is not None and now < deadline:  # an outage does not count
                    slot.confirm_by = now + self._confirmation
                self._poll_again(slot, SubmissionError(f"{self._unconfirmed(slot)}: {error}"))
            return
        for slot in slots:
            self._apply_status(slot, [entry for entry in entries if entry.model_id == slot.model_id])

    def _apply_status(self, slot: _Slot, entries: Sequence[SubmissionEntry]) -> None:
        """Take over the status of a submission, matched by its id, once it decides for which round it counts."""
        record = slot.record
        if record is None:
            return
        by_status = {entry.status: entry for entry in entries if entry.submission == record.submission}
        decided = by_status.get(ON_TIME) or by_status.get(QUEUED)
        if decided is None and set(by_status) == {LATE} and self._clock() >= slot.confirm_by:
            decided = by_status[LATE]  # scored for its round, though not queued for the next
        if decided is None:
            if slot.is_checked_again and not by_status:
                log.warning("%s: Numerai does not list submission %s any more", slot.name, record.submission)
                slot.is_checked_again = False
                slot.forget()
                slot.next_at = self._clock()
                return
            self._poll_again(slot, self._undecided(slot, by_status, entries))
            return
        slot.save(replace(record, round=decided.round, status=decided.status, at=self._timestamp()))
        if decided.round == self._round and decided.status == ON_TIME:
            log.info(
                "%s: %s accepted for round %d (%s)", slot.name, slot.predictions.model, decided.round, decided.status
            )
        else:
            log.warning(
                "%s: %s came after the close of round %d: Numerai lists it as %r for round %d",
                *(slot.name, slot.predictions.model, self._round, decided.status, decided.round),
            )

    def _undecided(
        self, slot: _Slot, by_status: Mapping[str, SubmissionEntry], entries: Sequence[SubmissionEntry]
    ) -> SubmissionError:
        """Describe why a submission is not confirmed yet."""
        what = self._unconfirmed(slot)
        if by_status:
            words = ", ".join(f"{status!r} for round {entry.round}" for status, entry in by_status.items())
            return SubmissionError(f"{what}: Numerai reports {words}; check the model's page at numer.ai")
        of_round = [entry for entry in entries if entry.round == self._round]
        if any(entry.status == NONE for entry in of_round):
            return _LostError(f"{what}: Numerai lists no submission of this model for the round")
        other = self._listed_instead(entries)
        if other:
            return SubmissionError(
                f"{what}: Numerai lists submission {other} for the round instead, which may have replaced it; it is"
                " uploaded again only by a run with the parameter 'replace' (REPLACE=1)"
            )
        return SubmissionError(f"{what}: Numerai does not list it")

    def _listed_instead(self, entries: Sequence[SubmissionEntry]) -> str | None:
        return next((entry.submission for entry in entries if entry.round == self._round and entry.submission), None)

    def _unconfirmed(self, slot: _Slot) -> str:
        submission = slot.record.submission if slot.record else None
        return (
            f"submission {submission} of {slot.name} for round {self._round} is uploaded, but was not confirmed within"
            f" {self._confirmation.total_seconds():g} s (NUMERAI_CONFIRMATION_SECONDS)"
        )

    def _poll_again(self, slot: _Slot, error: SubmissionError) -> None:
        now = self._clock()
        if now < slot.confirm_by:
            first, last = _POLL_SECONDS
            slot.next_at = now + timedelta(seconds=min(first * 2.0 ** min(slot.polls, 30), last))
            slot.next_at = min(slot.next_at, slot.confirm_by)
            slot.polls += 1
            return
        if isinstance(error, _LostError):
            slot.forget()  # the next attempt uploads it again
        self._fail(slot, error)

    def _postpone(self, slot: _Slot, error: PipelineError) -> None:
        slot.failed_attempts += 1
        if self._policy.is_exhausted(slot.failed_attempts):
            self._fail(slot, error)
            return
        is_closed = self._closes is not None and self._clock() >= self._closes
        policy = replace(self._policy, max_delay=_DELAY_AFTER_CLOSE_SECONDS) if is_closed else self._policy
        seconds = policy.delay(slot.failed_attempts, error)
        slot.next_at = self._clock() + timedelta(seconds=seconds)
        log.warning("%s: %s; next attempt in %.1f s", slot.name, error, seconds)

    def _fail(self, slot: _Slot, error: PipelineError) -> None:
        log.error("%s: %s", slot.name, error)
        slot.error = error

    def _require_open(self) -> None:
        """Make sure that an upload can still count.

        Between rounds Numerai queues a submission for the next round. Once that round is open, an upload would replace
        the submission of its run.

        Raises
        ------
        RoundClosedError
        """
        current = self._tournament.current_round()
        if current is not None and current.number > self._round:
            msg = (
                f"round {self._round} is closed and {current} is open, which has other live rows: nothing was uploaded"
            )
            raise RoundClosedError(msg)
        if current is not None and current.number == self._round:
            self._set_close(current.close_time)
        if self._late == "refuse" and self._closes is not None and self._clock() >= self._closes:
            msg = (
                f"round {self._round} closed at {self._closes:%a %Y-%m-%d %H:%M} UTC: nothing was uploaded"
                " (NUMERAI_LATE=refuse)"
            )
            raise RoundClosedError(msg)

    def _set_close(self, closes: datetime | None) -> None:
        self._closes = closes
        self._policy = replace(self._policy, deadline=submission_deadline(closes, self._late))

    def _timestamp(self) -> str:
        return self._clock().isoformat(timespec="seconds")


class _LostError(SubmissionError):
    """Numerai has no submission although its creation was acknowledged."""


def diagnose(
    account: Account,
    layout: RunLayout,
    numerai_model: str,
    predictions: RunPredictions,
    *,
    timeout_seconds: float,
    force: bool = False,
) -> dict[str, Any]:
    """Have a model's validation rows scored by Numerai, unless the same file was scored before.

    Returns
    -------
    dict
        ``sha256``, ``model``, ``key`` of the result with the submitted predictions, and the numbers of Numerai's
        diagnostics over all eras.
    """
    ids = read_ids(layout.data.dataset(predictions.dataset).validation, VALIDATION)
    file = write_submission(predictions.validation, layout.diagnostics_csv(numerai_model), ids)
    path = layout.diagnostics_record(numerai_model)
    sha256 = file_sha256(file)
    known = _content(path)
    if known and not force and known.get("sha256") == sha256:
        log.info("%s: the diagnostics of these validation rows are known", numerai_model)
        return known
    discard(path)
    answer = account.diagnose(account.model_id(numerai_model), file, timeout_seconds=timeout_seconds)
    found: dict[str, Any] = {"sha256": sha256, "model": predictions.model, "key": predictions.key}
    found |= {name: value for name, value in answer.items() if isinstance(value, (int, float, bool))}
    _write(path, found)
    log.info("%s: diagnostics done, mean CORR %s", numerai_model, found.get("validationCorrMean"))
    return found


def _content(path: Path) -> dict[str, Any] | None:
    if verified_manifest(path) is None:
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read(path: Path) -> SubmissionRecord | None:
    try:
        record = SubmissionRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None
    if verified_manifest(path) is None:  # the task was killed between the two files: the server has the truth
        return replace(record, submission=None, round=None, status=UPLOADING)
    return record


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_manifest(path)
