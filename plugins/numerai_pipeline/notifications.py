"""Tells somebody what becomes of runs: a web address, an e-mail address, or any Airflow notifier.

Airflow calls these when a run of the DAG has ended: in the DAG processor, which gives them under a minute, and which
logs an error of theirs and goes on. The run is over by then, so nothing here can fail it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseNotifier, conf
from airflow.sdk.log import mask_secret

from numerai_pipeline.errors import BadInputError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from pydantic import SecretStr

    from numerai_pipeline.settings import Event, Settings

log = logging.getLogger(__name__)

WAITING_TASK = "wait_for_round"
"""The task whose failure means that the run's round was missed."""
WEBHOOK_TIMEOUT = (3.0, 6.0)  # seconds to connect and to answer, three times: Airflow ends what takes 50
_EMAIL = """\
<p>{{ news.text | e }}</p>
<ul>
<li>run: <a href="{{ news.link | e }}">{{ news.run | e }}</a></li>
<li>state: {{ news.state | e }}</li>
{% if news.failed %}<li>failed: {{ news.failed | join(", ") | e }}</li>{% endif %}
</ul>
"""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class News:
    """What became of a run; the body of a webhook's POST, and ``news`` in the templates of other notifiers.

    Attributes
    ----------
    event : {"failed", "missed", "finished"}
        What is told.
    text : str
        The same in one line, for people.
    dag, run : str
        The DAG and the id of its run.
    round : str or None
        The round's number, or ``archive``; None when the run never came to know it.
    state : {"failed", "success"}
        The run's state.
    failed : list of str
        Tasks that failed, those that only never ran because of them left out.
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
    link: str


def run_callbacks(settings: Settings) -> dict[str, Any]:
    """Give the arguments of ``DAG`` that tell whom the settings name; none when they name nobody.

    Raises
    ------
    BadInputError
        When the notifier that is set cannot be imported or does not take its arguments.
    """
    tellers = [Teller(make, settings.notify_events) for make in _channels(settings)]
    callbacks = {}
    if {"failed", "missed"}.intersection(settings.notify_events):
        callbacks["on_failure_callback"] = [teller.run_failed for teller in tellers]
    if "finished" in settings.notify_events:
        callbacks["on_success_callback"] = [teller.run_succeeded for teller in tellers]
    return callbacks if tellers else {}


def _channels(settings: Settings) -> Iterator[Callable[[], BaseNotifier]]:
    """Give what makes each notifier: a new one for each news, since rendering changes them."""
    if settings.notify_webhook is not None:
        address = settings.notify_webhook
        yield lambda: WebhookNotifier(address)
    if settings.notify_email is not None:
        path = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
        arguments = {"to": settings.notify_email, "subject": "{{ news.text }}", "html_content": _EMAIL}
        yield _checked("NUMERAI_NOTIFY_EMAIL", path, arguments)
    if settings.notifier is not None:
        yield _checked("NUMERAI_NOTIFIER", settings.notifier, settings.notifier_arguments)


def _checked(setting: str, path: str, arguments: Mapping[str, Any]) -> Callable[[], BaseNotifier]:
    """Build what makes a notifier, after making one: a mistake shows now, and not when a run has failed."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"{setting}: {path} cannot be imported ({error}): is its provider installed where Airflow runs?"
        raise BadInputError(msg) from None
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        msg = f"{setting}: {path} is not a notifier: give the class of one, a subclass of airflow.sdk.BaseNotifier"
        raise BadInputError(msg)
    try:
        kind(**arguments)
    except (TypeError, ValueError) as error:
        msg = f"{setting}: {path} does not take these arguments ({error}): see NUMERAI_NOTIFIER_ARGUMENTS"
        raise BadInputError(msg) from None
    return lambda: kind(**arguments)


@dataclass(frozen=True)
class Teller:
    """Tells one notifier those events that are asked for."""

    make: Callable[[], BaseNotifier]
    events: tuple[Event, ...]

    def run_failed(self, context: Context) -> None:
        """Tell of a run that failed."""
        self._tell(context, "failed")

    def run_succeeded(self, context: Context) -> None:
        """Tell of a run that succeeded."""
        self._tell(context, "success")

    def _tell(self, context: Context, state: Literal["failed", "success"]) -> None:
        news = news_of(context, state)
        if news.event in self.events:
            told: Any = {**context, "news": news}
            self.make()(told)


def news_of(context: Context, state: Literal["failed", "success"]) -> News:
    """Find out what became of a run from the context of a DAG's callback.

    The context may have little more than the run's id: what else cannot be had is left out, and the log says why.
    """
    dag, run = context["dag"].dag_id, context["run_id"]
    ti: RuntimeTaskInstanceProtocol | None = context.get("ti")
    failed = []
    if state == "failed" and ti is not None:
        nothing: dict[str, Any] = {}
        states = _ask(lambda: ti.get_task_states(dag_id=dag, run_ids=[run]), nothing).get(run, {})
        failed = sorted(task for task, its_state in states.items() if its_state == "failed") or [ti.task_id]
    event: Event = "finished" if state == "success" else "missed" if WAITING_TASK in failed else "failed"
    round_name = _round(context, ti)
    what = f"round {round_name}" if round_name else "a round"
    said = {"finished": "finished", "missed": "was missed", "failed": f"failed ({', '.join(failed) or 'see the run'})"}
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    return News(
        event=event,
        text=f"{dag}: {what} {said[event]}",
        dag=dag,
        run=run,
        round=round_name,
        state=state,
        failed=failed,
        link=f"{base}/dags/{dag}/runs/{quote(run)}",
    )


def _round(context: Context, ti: RuntimeTaskInstanceProtocol | None) -> str | None:
    raw = _ask(lambda: ti.xcom_pull(task_ids="download"), None) if ti is not None else None
    known = raw.get("round") if isinstance(raw, dict) else context.get("params", {}).get("round")
    return str(known) if known is not None else None


def _ask(question: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - whatever Airflow cannot tell, the rest of the news is still news
        log.warning("Airflow does not tell everything of this run: %s", error)
        return otherwise


class WebhookNotifier(BaseNotifier):
    """Posts the news as JSON to an address, which is never logged and never a template: it often is a secret.

    Parameters
    ----------
    address : SecretStr
        Where to post; http or https.
    """

    def __init__(self, address: SecretStr) -> None:
        super().__init__()
        self._address = address

    def notify(self, context: Context) -> None:
        """Post the news.

        Raises
        ------
        NetworkError
            When the server cannot be reached or does not answer with 2xx; named by its host only.
        """
        from numerai_pipeline.numerai_api.retries import RetryPolicy

        address = self._address.get_secret_value()
        mask_secret(address)
        host = urlsplit(address).hostname
        retrying = RetryPolicy(attempts=3, initial_delay=0.5, max_delay=3.0).retrying(f"telling {host}")
        retrying(self._post, address, host, asdict(context["news"]))  # type: ignore[typeddict-item]
        self.log.info("told %s", host)

    @staticmethod
    def _post(address: str, host: str | None, body: Mapping[str, Any]) -> None:
        import requests

        try:
            reply = requests.post(address, json=body, timeout=WEBHOOK_TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            # its message may have the whole address
            msg = f"NUMERAI_NOTIFY_WEBHOOK: {host} cannot be reached ({type(error).__name__})"
            raise NetworkError(msg) from None
        if not reply.ok or reply.is_redirect:
            msg = f"NUMERAI_NOTIFY_WEBHOOK: {host} answered {reply.status_code}"
            raise NetworkError(msg)
