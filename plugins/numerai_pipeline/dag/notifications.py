"""Notifications about runs: to a webhook, an e-mail address, or any Airflow notifier.

Airflow's DAG processor calls them when a run of the DAG has ended, with a timeout below a minute. It logs their errors;
a failed notification does not affect the run.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseNotifier, conf
from airflow.sdk.log import mask_secret

from numerai_pipeline.core.errors import BadInputError, NetworkError
from numerai_pipeline.core.task_ids import WAIT_FOR_ROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from pydantic import SecretStr

    from numerai_pipeline.core.settings import Event, Settings

log = logging.getLogger(__name__)

WEBHOOK_TIMEOUT = (
    3.0,
    6.0,
)  # seconds to connect and to answer, for each of three attempts: Airflow stops callbacks after 50
_EMAIL = """\
<p>{{ event.text | e }}</p>
<ul>
<li>run: <a href="{{ event.link | e }}">{{ event.run | e }}</a></li>
<li>state: {{ event.state | e }}</li>
{% if event.failed %}<li>failed: {{ event.failed | join(", ") | e }}</li>{% endif %}
</ul>
"""
_DEPRECATED_VARIABLE = re.compile(r"[{][{%][^}]*\bnews\b")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class RunEvent:
    """Event of a run: the body of a webhook's POST, and ``event`` in the templates of other notifiers.

    Attributes
    ----------
    event : {"failed", "missed", "late", "finished"}
        The kind of event.
    text : str
        The event in one line, for people.
    dag, run : str
        The DAG and the id of its run.
    round : str or None
        The round's number, or ``archive``; None if the run ended before it was known.
    state : {"failed", "success"}
        The run's state.
    failed : list of str
        Failed tasks, without the tasks that did not run because of them.
    late : list of str
        Models at Numerai whose submissions came after the round's close and are queued for the next round.
    link : str
        The run in the web UI.
    """

    event: Event
    text: str
    dag: str
    run: str
    round: str | None
    state: Literal["failed", "success"]
    failed: list[str]
    late: list[str]
    link: str


def dag_callbacks(settings: Settings) -> dict[str, Any]:
    """Return the callback arguments of ``DAG`` for the configured channels; empty without a channel.

    Raises
    ------
    BadInputError
        When the configured notifier cannot be imported or rejects its arguments.
    """
    notifiers = [CallbackNotifier(make, settings.notify_events) for make in _channels(settings)]
    callbacks = {}
    if {"failed", "missed"}.intersection(settings.notify_events):
        callbacks["on_failure_callback"] = [notifier.run_failed for notifier in notifiers]
    if {"late", "finished"}.intersection(settings.notify_events):
        callbacks["on_success_callback"] = [notifier.run_succeeded for notifier in notifiers]
    return callbacks if notifiers else {}


def _channels(settings: Settings) -> Iterator[Callable[[], BaseNotifier]]:
    """Yield a factory for each notifier: rendering changes a notifier, so each event gets a new one."""
    if settings.notify_webhook is not None:
        address = settings.notify_webhook
        yield lambda: WebhookNotifier(address)
    if settings.notify_email is not None:
        path = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
        arguments = {"to": settings.notify_email, "subject": "{{ event.text }}", "html_content": _EMAIL}
        yield _checked("NUMERAI_NOTIFY_EMAIL", path, arguments)
    if settings.notifier is not None:
        if _DEPRECATED_VARIABLE.search(json.dumps(settings.notifier_arguments)):
            msg = "NUMERAI_NOTIFIER_ARGUMENTS: the template variable 'news' is deprecated: rename it to 'event'"
            warnings.warn(msg, FutureWarning, stacklevel=2)  # shown by default, unlike DeprecationWarning
        yield _checked("NUMERAI_NOTIFIER", settings.notifier, settings.notifier_arguments)


def _checked(setting: str, path: str, arguments: Mapping[str, Any]) -> Callable[[], BaseNotifier]:
    """Return a factory of a notifier; it creates one at once, so that a mistake is reported before a run fails."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{setting}: {path} cannot be imported ({error}): is its provider installed where Airflow runs?"
        raise BadInputError(msg) from None
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        msg = f"{setting}: {path} is not a notifier: set it to a subclass of airflow.sdk.BaseNotifier"
        raise BadInputError(msg)
    try:
        kind(**arguments)
    except (TypeError, ValueError) as error:
        msg = f"{setting}: {path} rejects its arguments ({error}): correct NUMERAI_NOTIFIER_ARGUMENTS"
        raise BadInputError(msg) from None
    return lambda: kind(**arguments)


@dataclass(frozen=True)
class CallbackNotifier:
    """Passes the configured events to one notifier."""

    make: Callable[[], BaseNotifier]
    events: tuple[Event, ...]

    def run_failed(self, context: Context) -> None:
        """Notify of a failed run."""
        self._notify(context, "failed")

    def run_succeeded(self, context: Context) -> None:
        """Notify of a run that succeeded."""
        self._notify(context, "success")

    def _notify(self, context: Context, state: Literal["failed", "success"]) -> None:
        event = build_event(context, state)
        # a run that submitted late has finished as well
        kinds = {"late", "finished"} if event.event == "late" else {event.event}
        if kinds.intersection(self.events):
            extended: Any = {**context, "event": event, "news": event}
            self.make()(extended)


def build_event(context: Context, state: Literal["failed", "success"]) -> RunEvent:
    """Build the event of a run from the context of a DAG's callback.

    The context may have little more than the run's id: other values that Airflow cannot provide are omitted and logged.
    """
    dag, run = context["dag"].dag_id, context["run_id"]
    ti: RuntimeTaskInstanceProtocol | None = context.get("ti")
    failed = []
    if state == "failed" and ti is not None:
        nothing: dict[str, Any] = {}
        states = _or_default(lambda: ti.get_task_states(dag_id=dag, run_ids=[run]), nothing).get(run, {})
        failed = sorted(task for task, its_state in states.items() if its_state == "failed") or [ti.task_id]
    late = _late_submissions(ti) if ti is not None else []
    event: Event = "missed" if WAIT_FOR_ROUND in failed else "failed"
    if state == "success":
        event = "late" if late else "finished"
    round_name = _round(context, ti)
    subject = f"round {round_name}" if round_name else "a round"
    submitted_late = f"was submitted after its close ({', '.join(late)} queued for the next round)"
    verbs = {
        "finished": "finished",
        "late": submitted_late,
        "missed": "was missed",
        "failed": f"failed ({', '.join(failed) or 'see the run'})" + (f" and {submitted_late}" if late else ""),
    }
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    return RunEvent(
        event=event,
        text=f"{dag}: {subject} {verbs[event]}",
        dag=dag,
        run=run,
        round=round_name,
        state=state,
        failed=failed,
        late=late,
        link=f"{base}/dags/{dag}/runs/{quote(run)}",
    )


def _round(context: Context, ti: RuntimeTaskInstanceProtocol | None) -> str | None:
    raw = _or_default(lambda: ti.xcom_pull(task_ids="download"), None) if ti is not None else None
    known = raw.get("round") if isinstance(raw, dict) else context.get("params", {}).get("round")
    return str(known) if known is not None else None


def _late_submissions(ti: RuntimeTaskInstanceProtocol) -> list[str]:
    result = _or_default(lambda: ti.xcom_pull(task_ids="submit"), None)
    return [str(name) for name in result.get("late", [])] if isinstance(result, dict) else []


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
