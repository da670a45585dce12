"""Notifications about runs: by Apprise, to a webhook, to an e-mail address, or by any Airflow notifier.

A failed task, an approval that waits and a deadline notify from the task's process. The end of a run notifies from
Airflow's DAG processor, with a timeout below a minute. Errors of a channel are logged; they affect neither the run nor
the other channels. Channels are created when an event occurs, never when Airflow parses the DAG file.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseNotifier, conf
from airflow.sdk.log import mask_secret, redact  # type: ignore[attr-defined]

from numerai_pipeline.core.errors import BadInputError, NetworkError
from numerai_pipeline.core.settings import load_notification_settings
from numerai_pipeline.core.task_ids import DOWNLOAD, SUBMIT, WAIT_FOR_ROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from typing import Literal

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from pydantic import SecretStr

    from numerai_pipeline.core.settings import Event, NotificationSettings

log = logging.getLogger(__name__)

WEBHOOK_TIMEOUT = (
    3.0,
    6.0,
)  # seconds to connect and to answer, for each of three attempts: Airflow stops callbacks after 50
MISSED = "missed"
"""XCom key of the task ``wait_for_round``: the round that it missed, ``{"round": int or None, "reason": str}``."""
_LONGEST_REASON = 500
_EMAIL = """\
<p>{{ event.text | e }}</p>
<ul>
<li>run: <a href="{{ event.link | e }}">{{ event.run | e }}</a></li>
<li>state: {{ event.state | e }}</li>
{% if event.failed %}<li>failed: {{ event.failed | join(", ") | e }}</li>{% endif %}
{% if event.reason %}<li>reason: {{ event.reason | e }}</li>{% endif %}
</ul>
"""
_PLAIN = "{{ event.text }}{% if event.reason %}\n{{ event.reason }}{% endif %}\n{{ event.link }}"
_APPRISE_TYPES = {"finished": "success", "approval": "info", "late": "warning", "deadline": "warning"}
_DEPRECATED_VARIABLE = re.compile(r"[{][{%][^}]*\bnews\b")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class RunEvent:
    """Event of a run: the body of a webhook's POST, and ``event`` in the templates of other notifiers.

    Attributes
    ----------
    event : {"task_failed", "failed", "missed", "late", "finished", "approval", "deadline"}
        The kind of event.
    text : str
        The event in one line, for people.
    dag, run : str
        The DAG and the id of its run.
    round : str or None
        The round's number, or ``archive``; None if it is not known yet.
    state : {"running", "failed", "success"}
        The run's state.
    failed : list of str
        Failed tasks, without the tasks that did not run because of them.
    late : list of str
        Models at Numerai whose submissions came after the round's close and are queued for the next round.
    reason : str or None
        The error of a failed task, or why the round was missed; at most 500 characters.
    link : str
        The run in the web UI.
    """

    event: Event
    text: str
    dag: str
    run: str
    round: str | None
    state: Literal["running", "failed", "success"]
    link: str
    failed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    reason: str | None = None


def dag_callbacks() -> dict[str, Any]:
    """Return the callback arguments of ``DAG``: events at the end of a run; empty without a channel."""
    return {"on_failure_callback": run_failed, "on_success_callback": run_succeeded} if _has_channels() else {}


def task_callbacks() -> dict[str, Any]:
    """Return the callback arguments of every task: the event of its failure; empty without a channel."""
    return {"on_failure_callback": task_failed} if _has_channels() else {}


def check_channels() -> None:
    """Log each mistake in the settings of notifications, and each channel that cannot be used; raise nothing."""
    try:
        settings = load_notification_settings()
    except BadInputError as error:
        log.error("no notifications are sent: %s", error)  # noqa: TRY400 - the message is complete
        return
    for make in _channels(settings):
        try:
            make("failed")
        except BadInputError as error:
            log.error("notifications are not sent by one of the channels: %s", error)  # noqa: TRY400 - as above


def run_failed(context: Context) -> None:
    """Notify of a failed run: its round was missed, or tasks failed. Called by Airflow."""
    ti = context.get("ti")
    missed = _missed_round(ti)
    late, failed = _late_submissions(ti), _failed_tasks(context, ti)
    if missed is not None:
        notify(context, _event(context, "missed", "was missed", "failed", failed=failed, reason=missed["reason"]))
        return
    submitted_late = f" and {_describe_late(late)}" if late else ""
    text = f"failed ({', '.join(failed) or 'see the run'}){submitted_late}"
    notify(context, _event(context, "failed", text, "failed", failed=failed, late=late))


def run_succeeded(context: Context) -> None:
    """Notify of a run that succeeded: it is finished, or it submitted late. Called by Airflow."""
    late = _late_submissions(context.get("ti"))
    if late:
        event = _event(context, "late", _describe_late(late), "success", late=late)
        # a run that submitted late has finished as well
        notify(context, event, {"late", "finished"})
    else:
        notify(context, _event(context, "finished", "finished", "success"))


def task_failed(context: Context) -> None:
    """Notify of a task that failed after its last attempt, while the run goes on. Called by Airflow."""
    ti = context["ti"]
    if ti.task_id == WAIT_FOR_ROUND and _missed_round(ti) is not None:
        return  # the run ends at once, with its own event
    error = context.get("exception")
    reason = str(redact(str(error)))[:_LONGEST_REASON] if error else None
    notify(context, _event(context, "task_failed", f"{ti.task_id} failed", "running", [ti.task_id], reason=reason))


def approval_waits(context: Context) -> None:
    """Notify of submissions that wait for the approval of a user."""
    notify(context, _event(context, "approval", "waits for the approval of its submissions", "running"))


def deadline_near(context: Context, closes: datetime, failed: list[str], unfinished: list[str]) -> None:
    """Notify of a round that closes soon, for which nothing is submitted."""
    tasks = {"unfinished": unfinished, "failed": failed}
    details = "; ".join(f"{state}: {', '.join(names)}" for state, names in tasks.items() if names)
    text = f"closes at {closes:%a %H:%M} UTC, and `{SUBMIT}` has not submitted ({details})"
    notify(context, _event(context, "deadline", text, "running", failed))


def notify(context: Context, event: RunEvent, kinds: set[Event] | None = None) -> None:
    """Send an event by all channels, if it is configured; errors are logged.

    Parameters
    ----------
    context : Context
        Airflow's context of a task or a callback.
    event : RunEvent
    kinds : set of str, optional
        The kinds of events that it is; its own by default.
    """
    try:
        settings = load_notification_settings()
    except BadInputError as error:
        log.error("not notified of %r: %s", event.text, error)  # noqa: TRY400 - the message is complete
        return
    if not (kinds or {event.event}).intersection(settings.notify_events):
        return
    for make in _channels(settings):
        extended: Any = {**context, "event": event, "news": event}
        try:
            make(event.event)(extended)
        except Exception as error:  # noqa: BLE001 - of any library; the other channels are used in any case
            log.error("not notified of %r: %s", event.text, redact(str(error)))  # noqa: TRY400 - may hold a secret


def _has_channels() -> bool:
    """Whether a channel is configured; also if its settings are wrong, which is then logged when an event occurs."""
    try:
        settings = load_notification_settings()
    except BadInputError:
        return True
    return any((settings.notify_apprise, settings.notify_webhook is not None, settings.notify_email, settings.notifier))


def _channels(settings: NotificationSettings) -> Iterator[Callable[[Event], BaseNotifier]]:
    """Yield a factory for each notifier: rendering changes a notifier, so each event gets a new one."""
    if settings.notify_apprise is not None:
        connection = settings.notify_apprise
        path = "airflow.providers.apprise.notifications.apprise.AppriseNotifier"
        yield lambda event: _create(
            "NUMERAI_NOTIFY_APPRISE",
            path,
            {
                "title": "{{ event.dag }}",
                "body": _PLAIN,
                "notify_type": _APPRISE_TYPES.get(event, "failure"),
                "apprise_conn_id": connection,
            },
        )
    if settings.notify_webhook is not None:
        address = settings.notify_webhook
        yield lambda _event: WebhookNotifier(address)
    if settings.notify_email is not None:
        smtp = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
        arguments = {"to": settings.notify_email, "subject": "{{ event.text }}", "html_content": _EMAIL}
        yield lambda _event: _create("NUMERAI_NOTIFY_EMAIL", smtp, arguments)
    if settings.notifier is not None:
        notifier, own_arguments = settings.notifier, settings.notifier_arguments
        if _DEPRECATED_VARIABLE.search(json.dumps(own_arguments)):
            msg = "NUMERAI_NOTIFIER_ARGUMENTS: the template variable 'news' is deprecated: rename it to 'event'"
            warnings.warn(msg, FutureWarning, stacklevel=2)  # shown by default, unlike DeprecationWarning
        yield lambda _event: _create("NUMERAI_NOTIFIER", notifier, own_arguments)


def _create(setting: str, path: str, arguments: Mapping[str, Any]) -> BaseNotifier:
    """Create a notifier.

    Raises
    ------
    BadInputError
        When it cannot be imported, is no notifier, or rejects its arguments.
    """
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{setting}: {path} cannot be imported ({error}): install its provider where Airflow runs"
        raise BadInputError(msg) from None
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        msg = f"{setting}: {path} is not a notifier: set it to a subclass of airflow.sdk.BaseNotifier"
        raise BadInputError(msg)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        msg = f"{setting}: {path} rejects its arguments ({error}): correct NUMERAI_NOTIFIER_ARGUMENTS"
        raise BadInputError(msg) from None


def _event(
    context: Context,
    kind: Event,
    verb: str,
    state: Literal["running", "failed", "success"],
    failed: list[str] | None = None,
    late: list[str] | None = None,
    reason: str | None = None,
) -> RunEvent:
    """Build an event.

    The context may have little more than the run's id: other values that Airflow cannot provide are omitted and logged.
    """
    dag, run = context["dag"].dag_id, context["run_id"]
    round_name = _round(context, context.get("ti"))
    subject = f"round {round_name}" if round_name else "a round"
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    link = f"{base}/dags/{dag}/runs/{quote(run)}"
    text = f"{dag}: {subject}: {verb}" if kind == "task_failed" else f"{dag}: {subject} {verb}"
    return RunEvent(kind, text, dag, run, round_name, state, link, failed or [], late or [], reason)


def _describe_late(late: list[str]) -> str:
    return f"was submitted after its close ({', '.join(late)} queued for the next round)"


def _failed_tasks(context: Context, ti: RuntimeTaskInstanceProtocol | None) -> list[str]:
    if ti is None:
        return []
    dag, run = context["dag"].dag_id, context["run_id"]
    nothing: dict[str, Any] = {}
    states = _or_default(lambda: ti.get_task_states(dag_id=dag, run_ids=[run]), nothing).get(run, {})
    return sorted(task for task, its_state in states.items() if its_state == "failed") or [ti.task_id]


def _round(context: Context, ti: RuntimeTaskInstanceProtocol | None) -> str | None:
    """Return the round's name: of the downloaded data, of the schedule's round, or of the run's parameter."""
    for task in (DOWNLOAD, WAIT_FOR_ROUND) if ti is not None else ():
        found = _pull(ti, task)
        if found is not None and found.get("round") is not None:
            return str(found["round"])
    known = (_missed_round(ti) or {}).get("round") or context.get("params", {}).get("round")
    return str(known) if known is not None else None


def _missed_round(ti: RuntimeTaskInstanceProtocol | None) -> dict[str, Any] | None:
    return _pull(ti, WAIT_FOR_ROUND, MISSED)


def _late_submissions(ti: RuntimeTaskInstanceProtocol | None) -> list[str]:
    return [str(name) for name in (_pull(ti, SUBMIT) or {}).get("late", [])]


def _pull(ti: RuntimeTaskInstanceProtocol | None, task: str, key: str = "return_value") -> dict[str, Any] | None:
    """Return an XCom that is a JSON object; None without one."""
    found = _or_default(lambda: ti.xcom_pull(task_ids=task, key=key), None) if ti is not None else None
    return found if isinstance(found, dict) else None


def _or_default(query: Callable[[], _Answer], default: _Answer) -> _Answer:
    try:
        return query()
    except Exception as error:  # noqa: BLE001 - the notification is sent without the values that Airflow lacks
        log.warning("Airflow cannot provide all values of this run: %s", error)
        return default


class WebhookNotifier(BaseNotifier):
    """Posts the event as JSON to an address, which is never logged and not a template, since it is often a secret.

    Parameters
    ----------
    address : SecretStr
        The http or https address.
    """

    def __init__(self, address: SecretStr) -> None:
        super().__init__()
        self._address = address

    def notify(self, context: Context) -> None:
        """Post the event.

        Raises
        ------
        NetworkError
            When the server is unreachable or does not answer with 2xx; the message names its host only.
        """
        from numerai_pipeline.numerai_api.retries import RetryPolicy

        address = self._address.get_secret_value()
        mask_secret(address)
        host = urlsplit(address).hostname
        retrying = RetryPolicy(attempts=3, initial_delay=0.5, max_delay=3.0).retrying(f"notifying {host}")
        retrying(self._post, address, host, asdict(context["event"]))  # type: ignore[typeddict-item]
        self.log.info("notified %s", host)

    @staticmethod
    def _post(address: str, host: str | None, body: Mapping[str, Any]) -> None:
        import requests

        try:
            reply = requests.post(address, json=body, timeout=WEBHOOK_TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            # its message may contain the whole address
            msg = f"NUMERAI_NOTIFY_WEBHOOK: {host} is unreachable ({type(error).__name__})"
            raise NetworkError(msg) from None
        if not reply.ok or reply.is_redirect:
            msg = f"NUMERAI_NOTIFY_WEBHOOK: {host} answered {reply.status_code}"
            raise NetworkError(msg)
