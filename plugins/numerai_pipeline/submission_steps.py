"""The step of the DAG that submits, and what decides whether there is anything to submit."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.exceptions import AirflowSkipException

from numerai_pipeline.airflow_words import translate_errors
from numerai_pipeline.errors import (
    BadInputError,
    CredentialsError,
    NetworkError,
    PipelineError,
    ProtocolError,
    RoundClosedError,
    SubmissionError,
)
from numerai_pipeline.keys import Keys, find_keys, where_to_put_keys
from numerai_pipeline.locks import alone_at
from numerai_pipeline.parameters import RunParameters, parse_parameters
from numerai_pipeline.run_dates import BACKFILL
from numerai_pipeline.run_layout import RunLayout
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

    from numerai_pipeline.account import Account

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run is to submit, and where.

    Attributes
    ----------
    source : {"numerai", "practice"}
    round : int
        The run's round.
    layout : RunLayout
        The run's directory.
    parameters : RunParameters
    keys : (str, str)
        Of the account; not shown.
    """

    source: Literal["numerai", "practice"]
    round: int
    layout: RunLayout
    parameters: RunParameters
    keys: Keys

    def __repr__(self) -> str:
        """Show it without the keys."""
        return f"Plan(source={self.source!r}, round={self.round}, directory={str(self.layout.directory)!r})"

    def account(self) -> Account:
        """Connect to the account."""
        from numerai_pipeline.account import Account

        settings = load_settings()
        return Account(
            settings.api_address(self.source),
            self.keys,
            timeout=settings.http_timeout,
            confirm_within=settings.confirmation_seconds,
        )

    def submissions(self, account: Account, predictions: Sequence[str], models: Sequence[str]) -> dict[str, str]:
        """Say which model at Numerai gets whose predictions.

        Without the setting, each model of a practice account gets those of ours that has its name. What was not picked
        for this run is left out.

        Parameters
        ----------
        account : Account
        predictions, models : sequence of str
            Names of all predictions there could be, and of those that models leave, which can be picked.

        Raises
        ------
        BadInputError
            When the setting names nothing for Numerai.
        AirflowSkipException
            When nothing is left.
        """
        wanted = load_settings().submissions
        if not wanted and self.source == "practice":
            wanted = {name: name for name in account.models() if name in predictions}
        if not wanted:
            msg = (
                "this run is to submit, but nothing says what: set NUMERAI_SUBMISSIONS, such as"
                " my_model=ensemble_selection, or turn off the run's parameter 'submit'"
            )
            raise BadInputError(msg)
        picked = self.parameters.models or models
        chosen = {name: model for name, model in wanted.items() if model in picked or model not in models}
        for name in wanted.keys() - chosen.keys():
            log.info("%s: left out, since its model %s was not picked for this run", name, wanted[name])
        if not chosen:
            msg = f"of the models that are to be submitted ({', '.join(wanted.values())}), none was picked for this run"
            raise AirflowSkipException(msg)
        return chosen


def check_submissions(submissions: Mapping[str, str], predictions: Iterable[str]) -> None:
    """Check that the setting names predictions that there will be.

    Parameters
    ----------
    submissions : mapping
        Model at Numerai → one of ours.
    predictions : iterable of str
        Names of all our models and ensembles.

    Raises
    ------
    BadInputError
        Naming the entry, and what there is.
    """
    known = list(predictions)
    for name, model in submissions.items():
        if model not in known:
            msg = f"NUMERAI_SUBMISSIONS: {name}={model}: there is no model or ensemble {model!r}; there are:"
            raise BadInputError(f"{msg} {', '.join(known)}")


def check_in_advance(parameters: RunParameters) -> None:
    """Find out before a run begins what would keep it from submitting hours later: wrong keys, models there are not.

    Where the server cannot be asked just now, nothing is found.

    Raises
    ------
    CredentialsError
        When half of the keys is missing, or the keys are refused.
    NotFoundError
        When the account has not got a model that NUMERAI_SUBMISSIONS names.
    """
    if not parameters.submit or parameters.source == "archive":
        return
    keys = find_keys(parameters.source)
    if keys is None:
        log.warning("nothing will be submitted: %s", where_to_put_keys(parameters.source))
        return
    from numerai_pipeline.account import Account
    from numerai_pipeline.downloads import Patience

    settings = load_settings()
    address = settings.api_address(parameters.source)
    account = Account(address, keys, timeout=settings.http_timeout, patience=Patience(attempts=1))
    try:
        account.models()
        for name in settings.submissions:
            account.model_id(name)
    except (NetworkError, ProtocolError) as error:
        log.warning("the account cannot be looked at just now: %s", error)


def plan(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> Plan:
    """Find out what a run is to submit.

    Raises
    ------
    AirflowSkipException
        When it is to submit nothing; says why.
    BadInputError
        When a parameter, or the keys, are wrong.
    """
    run = ti.xcom_pull(task_ids="unzip")
    if not run:
        msg = "nothing to submit: the run's data was not unpacked"
        raise AirflowSkipException(msg)
    parameters = parse_parameters(params)
    if not parameters.submit:
        msg = "not submitting: the run's parameter 'submit' is off (NUMERAI_SUBMIT says what it is by default)"
        raise AirflowSkipException(msg)
    if parameters.source == "archive":
        msg = "nothing to submit: an archive belongs to no open round"
        raise AirflowSkipException(msg)
    if run["era"] is not None:
        msg = f"nothing to submit: round {run['round']} is over, and this walk-forward run has no live rows"
        raise AirflowSkipException(msg)
    keys = find_keys(parameters.source)
    if keys is None:
        source = parameters.source
        msg = f"not submitting: there are no keys for the source {source!r}; {where_to_put_keys(source)}"
        raise AirflowSkipException(msg)
    layout = RunLayout(load_settings().data_dir / run["directory"])
    return Plan(parameters.source, int(run["round"]), layout, parameters, keys)


def submit(
    params: Mapping[str, Any],
    dag_run: DagRunProtocol,
    ti: RuntimeTaskInstanceProtocol,
    predictions: Sequence[str],
    models: Sequence[str],
) -> dict[str, Any]:
    """Hand in what the run is to submit, each by itself; return what Numerai made of it.

    One that cannot be handed in does not keep the others from it. The task fails then and says which, and is tried
    again when that can help: what was accepted already is not handed in again.
    """
    with translate_errors():
        planned = plan(params, ti)
        account = planned.account()
        try:
            chosen = planned.submissions(account, predictions, models)
            with alone_at(planned.layout.directory / "submissions", "submitting"):
                return _submit_all(planned, account, chosen)
        except RoundClosedError as error:
            if dag_run.run_type != BACKFILL:
                raise
            msg = f"not submitting, as this is a backfilled run: {error}"
            raise AirflowSkipException(msg) from None


def _submit_all(planned: Plan, account: Account, chosen: Mapping[str, str]) -> dict[str, Any]:
    from numerai_pipeline import submissions

    force = planned.parameters.force
    done: dict[str, Any] = {}
    failed: dict[str, PipelineError] = {}
    for name, model in chosen.items():
        with _noted(failed, name):
            record = submissions.submit(account, planned.layout, name, model, planned.round, force=force)
            done[name] = asdict(record)
    # what counts comes first: diagnostics take their time
    for name in tuple(done) if load_settings().diagnostics else ():
        with _noted(failed, f"diagnostics of {name}"):
            found = submissions.diagnose(account, planned.layout, name, chosen[name], force=force)
            done[name]["diagnostics"] = found
    if failed:
        raise _told_together(failed, done)
    return {"round": planned.round, "submissions": done}


@contextmanager
def _noted(failed: dict[str, PipelineError], name: str) -> Iterator[None]:
    """Note a failure instead of raising it; refused keys would be refused for the others as well."""
    try:
        yield
    except CredentialsError:
        raise
    except PipelineError as error:
        log.error("%s: %s", name, error)  # noqa: TRY400 - the message says it all
        failed[name] = error


def _told_together(failed: Mapping[str, PipelineError], done: Mapping[str, Any]) -> PipelineError:
    """Put several failures in one, of the kind that decides whether trying again can help."""
    if len(failed) == 1 and not done:
        return next(iter(failed.values()))
    told = "; ".join(f"{name}: {error}" for name, error in failed.items())
    msg = f"failed: {', '.join(failed)} (submitted: {', '.join(done) or 'none'}). {told}"
    kinds = list(failed.values())
    if all(isinstance(error, RoundClosedError) for error in kinds):
        return RoundClosedError(msg)
    return BadInputError(msg) if all(isinstance(error, BadInputError) for error in kinds) else SubmissionError(msg)
