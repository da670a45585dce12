"""The DAG's task ``submit``, its plan, and the check of keys and models before a run starts."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.exceptions import AirflowSkipException

from numerai_pipeline.core.errors import (
    BadInputError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RoundClosedError,
    SubmissionError,
)
from numerai_pipeline.core.parameters import RunParameters, parse_parameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.task_ids import APPROVE, DOWNLOAD, UNZIP
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.credentials import Keys, credentials_hint, load_credentials
from numerai_pipeline.dag.run_dates import BACKFILL, SCHEDULED
from numerai_pipeline.storage.run_directory import RunDirectory
from numerai_pipeline.storage.used_objects import RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

    from numerai_pipeline.core.errors import PipelineError
    from numerai_pipeline.core.stables import Submissions
    from numerai_pipeline.numerai_api.account import Account
    from numerai_pipeline.numerai_api.client import ApiClient
    from numerai_pipeline.numerai_api.submission_files import RunPredictions
    from numerai_pipeline.numerai_api.submissions import SubmissionRecord
    from numerai_pipeline.storage.layout import RunLayout

log = logging.getLogger(__name__)

APPROVED = "approved"
"""XCom key of the task ``approve``: what its user approved, ``{model at Numerai: {"model", "key", "sha256"}}``."""


@dataclass(frozen=True)
class SubmissionPlan:
    """Predictions to submit, and the account they go to.

    Attributes
    ----------
    source : {"numerai", "practice"}
    round : int
        The run's round.
    closes : datetime or None
        The round's close, where the run knows it.
    layout : RunLayout
        The run's directory.
    parameters : RunParameters
    submissions : Submissions
        The submissions of its stable.
    keys : (str, str)
        Of the account; not shown.
    """

    source: Literal["numerai", "practice"]
    round: int
    closes: datetime | None
    layout: RunLayout
    parameters: RunParameters
    submissions: Submissions
    keys: Keys

    def __repr__(self) -> str:
        """Show it without the keys."""
        return f"SubmissionPlan(source={self.source!r}, round={self.round}, directory={str(self.layout.directory)!r})"

    def client(self) -> ApiClient:
        """Connect to the server with the account's keys."""
        from numerai_pipeline.numerai_api.client import ApiClient
        from numerai_pipeline.numerai_api.retries import RetryPolicy
        from numerai_pipeline.numerai_api.submissions import submission_deadline

        settings = load_settings()
        return ApiClient(
            settings.api_address(self.source),
            timeout=settings.http_timeout_seconds,
            policy=RetryPolicy(deadline=submission_deadline(self.closes, settings.late)),
            keys=self.keys,
        )

    def select(self, account: Account, predictions: Sequence[str], models: Sequence[str]) -> dict[str, str]:
        """Select which model at Numerai gets which predictions.

        Without the stable's submissions, each model of an account at the simulated tournament gets those of the model
        or ensemble of its name. Models that are not selected for this run are left out.

        Parameters
        ----------
        account : Account
        predictions, models : sequence of str
            Names of all possible predictions, and of those made by models, which can be selected.

        Raises
        ------
        BadInputError
            When the stable has none for Numerai.
        AirflowSkipException
            When nothing remains.
        """
        wanted = self.submissions.models
        if not wanted and self.source == "practice":
            wanted = {name: name for name in account.models() if name in predictions}
        if not wanted:
            raise _no_submissions(self.submissions)
        chosen = {
            name: model for name, model in wanted.items() if model not in models or self.parameters.selects([model])
        }
        for name in wanted.keys() - chosen.keys():
            log.info("%s: left out, since its model %s is not selected for this run", name, wanted[name])
        if not chosen:
            msg = f"none of the models to submit ({', '.join(wanted.values())}) is selected for this run"
            raise AirflowSkipException(msg)
        return chosen

    def find_predictions(self, chosen: Mapping[str, str]) -> tuple[dict[str, RunPredictions], dict[str, PipelineError]]:
        """Find the run's own predictions for the selected models at Numerai.

        Parameters
        ----------
        chosen : mapping
            Model at Numerai → model or ensemble, from :meth:`select`.

        Returns
        -------
        found : dict
            Model at Numerai → predictions.
        errors : dict
            Model at Numerai → the reason why the run has none.
        """
        from numerai_pipeline.numerai_api import submission_files

        found: dict[str, RunPredictions] = {}
        errors: dict[str, PipelineError] = {}
        for name, model in chosen.items():
            try:
                found[name] = submission_files.find_predictions(self.layout, model)
            except BadInputError as error:
                log.error("%s: %s", name, error)  # noqa: TRY400 - the message is complete
                errors[name] = error
        return found, errors


def approval_of(predictions: RunPredictions) -> dict[str, str]:
    """Return the values that bind an approval to predictions: model or ensemble, key of the result, SHA-256."""
    return {"model": predictions.model, "key": predictions.key, "sha256": predictions.sha256}


def refuse_unapproved(chosen: Mapping[str, RunPredictions], approved: Mapping[str, Any]) -> dict[str, PipelineError]:
    """Refuse the predictions that are not exactly the approved ones.

    Returns
    -------
    dict
        Model at Numerai → the error, which names the approved and the present result.
    """
    errors: dict[str, PipelineError] = {}
    for name, predictions in chosen.items():
        present, before = approval_of(predictions), approved.get(name)
        if before == present:
            continue
        was = _describe(before) if isinstance(before, dict) else "none for it"
        msg = (
            f"not submitted: the approval is of other predictions (approved: {was}; present: {_describe(present)}):"
            f" clear `{APPROVE}` to have the present ones approved"
        )
        errors[name] = BadInputError(msg)
    return errors


def _describe(approved: Mapping[str, Any]) -> str:
    return f"{approved.get('model')}, result {approved.get('key')}, SHA-256 {str(approved.get('sha256'))[:12]}"


def _no_submissions(submissions: Submissions) -> BadInputError:
    msg = (
        f"{submissions.setting} is empty, so this run has nothing to submit: set it, such as"
        " my_model=ensemble_selection, or turn off the run's parameter 'submit'"
    )
    return BadInputError(msg)


def preflight_check(parameters: RunParameters, submissions: Submissions, run_type: str) -> None:
    """Check keys, their scopes and the models at Numerai before a run starts, not hours later when it submits.

    Where the server is unreachable at present, the run starts unchecked.

    Raises
    ------
    CredentialsError
        When half of the keys is missing, or the keys are refused or lack a scope, which is named.
    NotFoundError
        When the account does not have a model of the submissions.
    BadInputError
        When there are no submissions and the run is for Numerai.
    """
    if not submissions.is_submitting(parameters, run_type) or parameters.source == "archive":
        return
    keys = load_credentials(parameters.source)
    if keys is None:
        log.warning("nothing will be submitted: %s", credentials_hint(parameters.source))
        return
    from numerai_pipeline.numerai_api.account import Account
    from numerai_pipeline.numerai_api.client import ApiClient
    from numerai_pipeline.numerai_api.retries import RetryPolicy

    settings = load_settings()
    if not submissions.models and parameters.source == "numerai":
        raise _no_submissions(submissions)
    account = Account(
        ApiClient(
            settings.api_address(parameters.source),
            timeout=settings.http_timeout_seconds,
            policy=RetryPolicy(attempts=1),
            keys=keys,
        )
    )
    try:
        account.models()
        account.check_access()
        for name in submissions.models:
            account.model_id(name)
    except NotFoundError as error:
        msg = f"{submissions.setting}: {error}"
        raise NotFoundError(msg) from None
    except (NetworkError, ProtocolError) as error:
        log.warning("the account cannot be checked at present: %s", error)


def plan_submission(
    params: Mapping[str, Any], dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol, submissions: Submissions
) -> SubmissionPlan:
    """Plan the submissions of a run.

    Raises
    ------
    AirflowSkipException
        When it submits nothing; with the reason.
    BadInputError
        When a parameter or the keys are wrong.
    """
    run = ti.xcom_pull(task_ids=UNZIP)
    if not run:
        msg = "nothing to submit: the run's data was not unpacked"
        raise AirflowSkipException(msg)
    parameters = parse_parameters(params)
    if not submissions.is_submitting(parameters, dag_run.run_type):
        raise AirflowSkipException(f"not submitting: {_reason_not_to_submit(parameters, dag_run)}")
    if parameters.source == "archive":
        msg = "nothing to submit: an archive belongs to no open round"
        raise AirflowSkipException(msg)
    if run["era"] is not None:
        msg = f"nothing to submit: round {run['round']} is closed, and this walk-forward run has no live rows"
        raise AirflowSkipException(msg)
    keys = load_credentials(parameters.source)
    if keys is None:
        source = parameters.source
        msg = f"not submitting: the source {source!r} has no keys; {credentials_hint(source)}"
        raise AirflowSkipException(msg)
    layout = RunDirectory.from_xcom(run).layout(load_settings().data_dir)
    closes = (ti.xcom_pull(task_ids=DOWNLOAD) or {}).get("closes")
    return SubmissionPlan(
        parameters.source,
        int(run["round"]),
        datetime.fromisoformat(closes) if closes else None,
        layout,
        parameters,
        submissions,
        keys,
    )


def _reason_not_to_submit(parameters: RunParameters, dag_run: DagRunProtocol) -> str:
    if parameters.submit is not None:
        return "the run's parameter 'submit' is off"
    if dag_run.run_type in (SCHEDULED, BACKFILL):
        return "scheduled runs of this DAG do not submit (set NUMERAI_SUBMIT, or the stable's submissions)"
    return "the run's parameter 'submit' is not set, and the schedule has not started the run"


@translate_errors()
def submit(
    params: Mapping[str, Any],
    dag_run: DagRunProtocol,
    ti: RuntimeTaskInstanceProtocol,
    predictions: Sequence[str],
    models: Sequence[str],
    submissions: Submissions,
) -> dict[str, Any]:
    """Upload and confirm the run's submissions; return their records.

    A model whose submission fails does not delay the others. The task then fails, names it, and is retried when that
    can help: submissions that were uploaded before are only confirmed. A submission that came after the round's close
    is queued by Numerai for the next round: a warning and an entry in ``late``, not a failure.

    Returns
    -------
    dict
        ``round``; ``submissions``, the record of each model at Numerai; ``late``, the names of late ones.
    """
    plan = plan_submission(params, dag_run, ti, submissions)
    approved = None
    if load_settings().approve_submissions:
        approved = ti.xcom_pull(task_ids=APPROVE, key=APPROVED) or {}
    try:
        return _submit_all(plan, RunRef(dag_run.dag_id, dag_run.run_id), predictions, models, approved)
    except RoundClosedError as error:
        if dag_run.run_type != BACKFILL:
            raise
        msg = f"not submitting, as this is a backfilled run: {error}"
        raise AirflowSkipException(msg) from None


def _submit_all(
    plan: SubmissionPlan,
    run: RunRef,
    predictions: Sequence[str],
    models: Sequence[str],
    approved: Mapping[str, Any] | None,
) -> dict[str, Any]:
    from numerai_pipeline.numerai_api.account import Account
    from numerai_pipeline.numerai_api.retries import RetryPolicy
    from numerai_pipeline.numerai_api.submissions import SubmissionBatch
    from numerai_pipeline.numerai_api.tournament import Tournament

    settings = load_settings()
    client = plan.client()
    account = Account(client)
    chosen, missing = plan.find_predictions(plan.select(account, predictions, models))
    refused = {} if approved is None else refuse_unapproved(chosen, approved)
    for name, error in refused.items():
        log.error("%s: %s", name, error)
        del chosen[name]
    batch = SubmissionBatch(
        account,
        Tournament(client.with_policy(RetryPolicy(attempts=1))),
        plan.layout,
        run,
        plan.source,
        plan.round,
        closes=plan.closes,
        late=settings.late,
        confirmation_seconds=settings.confirmation_seconds,
        replace_others=plan.parameters.replace,
    )
    records, errors = batch.submit(chosen)
    errors = {**missing, **refused, **errors}
    done: dict[str, Any] = {name: asdict(record) for name, record in records.items()}
    if settings.diagnostics:
        # not worth the attempts of a submission, which go on until the round closes
        account = Account(client.with_policy(RetryPolicy()))
        for name in records:
            _add_diagnostics(plan, account, name, chosen[name], done[name])
    if errors:
        raise _combine_errors(errors, records)
    return {"round": plan.round, "submissions": done, "late": [name for name in records if records[name].is_late]}


def _add_diagnostics(
    plan: SubmissionPlan, account: Account, name: str, predictions: RunPredictions, result: dict[str, Any]
) -> None:
    """Add Numerai's diagnostics to a submission's result; no failure of theirs affects the submission."""
    from numerai_pipeline.numerai_api.submissions import diagnose

    timeout = load_settings().confirmation_seconds
    try:
        result["diagnostics"] = diagnose(
            account, plan.layout, name, predictions, timeout_seconds=timeout, force=plan.parameters.force
        )
    except Exception as error:  # noqa: BLE001 - the submission is accepted, in any case
        log.warning("%s: no diagnostics: %s", name, error)


def _combine_errors(errors: Mapping[str, PipelineError], records: Mapping[str, SubmissionRecord]) -> PipelineError:
    """Put several failures in one error, of the kind that decides whether a retry can help."""
    if len(errors) == 1 and not records:
        return next(iter(errors.values()))
    details = "; ".join(f"{name}: {error}" for name, error in errors.items())
    msg = f"failed: {', '.join(errors)} (submitted: {', '.join(records) or 'none'}). {details}"
    kinds = list(errors.values())
    if all(isinstance(error, RoundClosedError) for error in kinds):
        return RoundClosedError(msg)
    return BadInputError(msg) if all(isinstance(error, BadInputError) for error in kinds) else SubmissionError(msg)
