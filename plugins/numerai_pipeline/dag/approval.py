"""Approval of the submissions by a user: a task that waits for an answer in the web UI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowFailException

from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.leaderboard_links import ADDRESS
from numerai_pipeline.dag.notifications import approval_waits
from numerai_pipeline.dag.submission import APPROVED, approval_of, plan_submission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from numerai_pipeline.core.stables import Submissions
    from numerai_pipeline.numerai_api.submission_files import RunPredictions
    from numerai_pipeline.storage.layout import RunLayout

_COLUMNS = {
    "payout": "payout score",
    "corr": "mean CORR",
    "sharpe": "Sharpe",
    "max_drawdown": "max drawdown",
    "logloss": "logloss",
}


class SubmissionApproval(ApprovalOperator):
    """Waits until a user approves the run's submissions; skipped if there are none.

    Parameters
    ----------
    predictions, models : sequence of str
        Names of all possible predictions, and of the predictions of models.
    submissions : Submissions
        The submissions of the DAG's stable.
    **kwargs
        Arguments of every operator, and ``response_timeout``, after which the task fails.
    """

    def __init__(
        self, *, predictions: Sequence[str], models: Sequence[str], submissions: Submissions, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.submissions = submissions
        self.predictions = tuple(predictions)
        self.models = tuple(models)

    @translate_errors()
    def execute(self, context: Context) -> Any:
        """Show the planned submissions, notify of them, and wait for an answer.

        The shown results are the XCom ``approved``: `submit` refuses any other.
        """
        from numerai_pipeline.numerai_api.account import Account

        planned = plan_submission(context["params"], context["dag_run"], context["ti"], self.submissions)
        chosen = planned.select(Account(planned.client()), self.predictions, self.models)
        found, _ = planned.find_predictions(chosen)
        approved = {name: approval_of(predictions) for name, predictions in found.items()}
        context["ti"].xcom_push(key=APPROVED, value=approved)
        self.body = approval_text(planned.layout, planned.round, chosen, found, _leaderboard_address(planned.layout))
        approval_waits(context)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Handle the answer: approved, rejected (then nothing is submitted), or none in time."""
        try:
            return super().execute_complete(context, event)
        except HITLTimeoutError as error:
            msg = f"nothing was submitted: no approval within {self.response_timeout} (NUMERAI_APPROVAL_HOURS)"
            raise AirflowFailException(msg) from error


def approval_text(
    layout: RunLayout, round_number: int, chosen: Mapping[str, str], found: Mapping[str, RunPredictions], link: str
) -> str:
    """Describe the planned submissions in Markdown, with the leaderboard row of each.

    Parameters
    ----------
    layout : RunLayout
        The run's directory.
    round_number : int
    chosen : mapping
        Model at Numerai → model or ensemble of this pipeline.
    found : mapping
        Model at Numerai → the predictions to approve, for those that the run has.
    link : str
        Address of the run's leaderboard in the web UI.
    """
    rows, total = _leaderboard(layout)
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows.values())]
    titles = [
        "Numerai model",
        "predictions of",
        "SHA-256",
        *(["rank"] if rows else []),
        *(_COLUMNS[name] for name in columns),
    ]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for name, model in chosen.items():
        content = found[name].sha256[:12] if name in found else "no predictions"
        row = rows.get(model, {})
        rank = [f"{row.get('rank', '?')} of {total}"] if rows else []
        lines.append(
            f"| {' | '.join([name, model, content, *rank, *(_digits(row.get(column)) for column in columns)])} |"
        )
    board = f"[The whole leaderboard]({link})" if rows else "There is no leaderboard: `evaluate` failed."
    return "\n".join([f"Submissions for round {round_number}:", "", *lines, "", board])


def _leaderboard_address(layout: RunLayout) -> str:
    run = {"round": layout.directory.parent.name, "run": layout.directory.name}
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/{ADDRESS}?{urlencode(run)}"


def _leaderboard(layout: RunLayout) -> tuple[dict[str, dict[str, Any]], int]:
    try:
        models = json.loads(layout.leaderboard.read_text(encoding="utf-8"))["models"]
        return {row["model"]: row for row in models}, len(models)
    except (OSError, ValueError, KeyError, TypeError):
        return {}, 0


def _digits(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else ""
