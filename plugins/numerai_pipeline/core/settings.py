"""The settings of a deployment: read once from the environment and validated, with one clear error for each mistake.

Every setting is an environment variable ``NUMERAI_<NAME>``. Parameters of a single run are in ``parameters.py``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.round_calendar import DEFAULT_DAYS, parse_schedule

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

log = logging.getLogger(__name__)

NUMERAI_API_URL = "https://api-tournament.numer.ai"
LEAST_DAYS = 7
"""Housekeeping never removes files used within so many days: a long run may still read them."""
DEPRECATED_VARIABLES = {
    "engine_timeout_seconds": "NUMERAI_ENGINE_PATIENCE",
    "round_poll_seconds": "NUMERAI_ROUND_POLL",
    "http_timeout_seconds": "NUMERAI_HTTP_TIMEOUT",
    "large_queue_memory_mib": "NUMERAI_BIG_MEMORY",
    "notify_events": "NUMERAI_NOTIFY_OF",
    "cores": "MODEL_SLOTS",
}
"""A setting → its variable's former name, which is accepted for one more release, with a warning."""


def _http_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s]+", value):
        msg = f"{value!r} is not an http or https address"
        raise ValueError(msg)
    return value.rstrip("/")


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        msg = f"{str(value)!r} is not an absolute path"
        raise ValueError(msg)
    return value


def _secret_http_address(value: SecretStr) -> SecretStr:
    try:
        return SecretStr(_http_address(value.get_secret_value()))
    except ValueError:
        msg = "not an http or https address"
        raise ValueError(msg) from None


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        msg = f"{value!r} is an empty list"
        raise ValueError(msg)
    return parts


def _from_json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        msg = f"not JSON ({error})"
        raise ValueError(msg) from None


def _mapping(value: object) -> object:
    """Read a JSON object of texts, or ``name=model,name=model``."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith(("{", "[")):
        found = _from_json(value)
        if not isinstance(found, dict):
            msg = "not a JSON object"
            raise ValueError(msg)
        pairs = [(str(name), str(model)) for name, model in found.items()]
    else:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        wrong = [part for part in parts if part.count("=") != 1]
        if wrong:
            msg = f"{wrong[0]!r} is not of the form name=model"
            raise ValueError(msg)
        pairs = [(name.strip(), model.strip()) for name, _, model in (part.partition("=") for part in parts)]
    return check_pairs(pairs)


def check_pairs(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Check the pairs of a model at Numerai and the name of its predictions; return them as a mapping.

    Raises
    ------
    ValueError
        Naming the model at Numerai.
    """
    for index, (name, model) in enumerate(pairs):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            msg = f"{name!r} is not the name of a model at Numerai (letters, digits, _ and -)"
            raise ValueError(msg)
        if not model:
            msg = f"{name} has no predictions: write {name}= and the name of one of our models or ensembles"
            raise ValueError(msg)
        if name in [other for other, _ in pairs[:index]]:
            msg = f"{name} is listed twice: a model at Numerai gets the predictions of one of ours"
            raise ValueError(msg)
    return dict(pairs)


def _constraint(value: str) -> str:
    if not re.fullmatch(r"(node|engine)\.[\w.-]+\s*(==|!=)\s*[^\s=!]+", value):
        msg = f"{value!r} is not a placement constraint, such as node.labels.numerai==models or node.role!=manager"
        raise ValueError(msg)
    return value


Event = Literal["task_failed", "failed", "missed", "late", "finished", "approval", "deadline"]
Constraint = Annotated[str, AfterValidator(_constraint)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]
SecretHttpAddress = Annotated[SecretStr, AfterValidator(_secret_http_address)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def _variable(field: str) -> str:
    """Give the environment variable of a setting: its present name, or the former one where only that is set."""
    present = f"NUMERAI_{field.upper()}"
    former = DEPRECATED_VARIABLES.get(field, "")
    return former if os.environ.get(former) and not os.environ.get(present) else present


class _DeprecatedVariables(PydanticBaseSettingsSource):
    """Reads settings from the former names of their variables, where only those are set, and warns of each."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Give a setting's value as text, its name, and whether the text is complex (never: validators parse it)."""
        del field
        variable = _variable(field_name)
        if variable != DEPRECATED_VARIABLES.get(field_name):
            return None, field_name, False
        message = f"{variable} is deprecated and will not be read by the next release: use NUMERAI_{field_name.upper()}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        log.warning(message)
        return os.environ[variable], field_name, False

    def __call__(self) -> dict[str, Any]:
        """Give the values of the settings whose variables have their former names."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def machine_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_data_dir() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "numerai-data"


class _Settings(BaseSettings):
    """Reads each field from its variable."""

    model_config = SettingsConfigDict(env_prefix="NUMERAI_", extra="ignore", frozen=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read settings from arguments, then the environment, then the former names of variables."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _DeprecatedVariables(settings_cls)


class Settings(_Settings):
    """The settings of a deployment; each field's description is its documentation."""

    data_dir: AbsolutePath = Field(
        default_factory=_default_data_dir,
        description="The shared data volume as Airflow's tasks see it; `numerai-data` in Airflow's home by default.",
    )
    data_dir_on_host: AbsolutePath | None = Field(
        default=None,
        description="The same volume as the Docker host sees it. By default it is detected: `data_dir` where Airflow"
        " runs on the host, or the source of the container's own mount where Airflow runs in a container.",
    )
    api_url: HttpAddress = Field(
        default=NUMERAI_API_URL,
        description="Address of the Numerai API for the source `numerai`.",
    )
    practice_url: HttpAddress | None = Field(
        default=None,
        description="Address of a simulated tournament's server for the source `practice`.",
    )
    images_dir: AbsolutePath | None = Field(
        default=None,
        description="Folder of the model images and their `models.yaml`; `model_images` beside `dags` by default.",
    )
    image_registry: str = Field(
        default="",
        pattern=r"^([\w.:-]+(/[\w.-]+)*/)?$",
        description="Registry and path put before the names of the model images, with a slash at its end;"
        " empty for images built on this machine.",
    )
    container_user: str | None = Field(
        default=None,
        pattern=r"^[1-9]\d*(:\d+)?$",
        description="User (and group) id of the model containers; never root. By default Airflow's own, or 10001 where"
        " Airflow itself is root.",
    )
    docker_conn_id: str | None = Field(
        default=None,
        min_length=1,
        description="Airflow connection, of type *docker*, with the login to the registry of the model images; no login"
        " by default.",
    )
    engine: Literal["docker", "swarm"] = Field(
        default="docker",
        description="How model containers are started: `docker`, on the engine beside Airflow, or `swarm`, as services"
        " on any node of a Docker Swarm (`docs/deployment/swarm.md`).",
    )
    swarm_network: str = Field(
        default="numerai-models",
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="Swarm overlay network for model containers; created as an internal network if missing.",
    )
    swarm_constraints: Annotated[tuple[Constraint, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="Placement constraints of model containers in a swarm (comma-separated), such as"
        " `node.labels.numerai==models`.",
    )
    pool: str = Field(
        default="numerai_models", min_length=1, description="Airflow pool that limits the cores used by models."
    )
    cores: int = Field(
        default_factory=machine_cores,
        ge=1,
        le=1024,
        description="Cores of a machine that the models may use together: the slots of a new pool, and the cores that"
        " the shares in `models.yaml` refer to. By default all cores of the machine.",
    )
    large_queue_memory_mib: int | None = Field(
        default=None,
        ge=1,
        description="Memory in MiB from which a model's task goes to the Airflow queue `big-memory`; smaller models go"
        " to `cpu`. For Celery workers of different sizes; if not set, all tasks are in the default queue.",
    )
    schedule: Annotated[str, AfterValidator(parse_schedule)] = Field(
        default=DEFAULT_DAYS,
        description="Days whose rounds are run, unless `stables.yaml` sets others: any of `tue`, `wed`, `thu`, `fri`,"
        " `sat` (comma-separated), `all` five,"
        " or `off`: no scheduled runs, and backfills are of Saturday's rounds. The default is Saturday, whose round"
        " stays open longest.",
    )
    stables: AbsolutePath | None = Field(
        default=None,
        description="Path of `stables.yaml`: further configurations of the DAG, each with its schedule, parameters and"
        " submissions (`docs/guides/stables.md`). Without it there is one DAG, `numerai_tournament`.",
    )
    fallback_minutes: int = Field(
        default=20,
        ge=1,
        le=720,
        description="Minutes before a round closes at which a run that submits waits for no new fit any more. The"
        " newest finished fit predicts instead, or else the run goes on without the model; the new fit continues for"
        " later runs. The time of searches is limited accordingly.",
    )
    fit_max_age_weeks: int = Field(
        default=8,
        ge=1,
        le=104,
        description="Age in weeks up to which a run predicts with an earlier fit instead of a new one.",
    )
    round_poll_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds between checks for an open round (with random jitter).",
    )
    owner: str = Field(default="numerai", min_length=1, description="Owner of the DAG, as the web UI shows it.")
    http_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a server to connect or to send the next bytes.",
    )
    housekeeping: bool = Field(
        default=True,
        description="Whether old files and containers are removed every week. The DAG can be triggered in either case.",
    )
    keep_rounds: int = Field(
        default=12,
        ge=1,
        le=100_000,
        description="Number of latest rounds of each source whose files housekeeping keeps at any age.",
    )
    keep_days: int = Field(
        default=60,
        ge=LEAST_DAYS,
        le=36_500,
        description="Days without use after which housekeeping removes downloads and the files of other rounds.",
    )
    engine_timeout_seconds: float = Field(
        default=180.0,
        gt=0,
        le=86_400,
        description="Seconds that a task waits for an unreachable Docker engine (which may be restarting) before it"
        " fails. The next attempt reattaches to the same container.",
    )
    keep_container_days: int = Field(
        default=1,
        ge=1,
        le=36_500,
        description="Days after which housekeeping removes containers whose task is over, counted from the container's"
        " end or, if it is still running, from its start. The start of a run removes them at once.",
    )
    submit: bool = Field(
        default=False,
        description="Whether scheduled and backfilled runs submit. Manual runs submit only with the parameter `submit`;"
        " a stable with submissions submits in any case.",
    )
    submissions: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapping)] = Field(
        default_factory=dict,
        description="Which model at Numerai gets whose predictions: `name=model,name=model` or a JSON object, with the"
        " Numerai model before the equals sign, and one of ours or an ensemble (`ensemble_selection`) after it. For the"
        " DAG `numerai_tournament`, unless `stables.yaml` sets its submissions.",
    )
    approve_submissions: bool = Field(
        default=False, description="Whether a user must approve in the web UI before a run submits."
    )
    approval_hours: float = Field(
        default=36.0,
        gt=0,
        le=24 * 7,
        description="Hours to wait for that approval; then the run fails without submitting.",
    )
    diagnostics: bool = Field(
        default=False,
        description="Whether submitted models' predictions of the validation rows are also uploaded to Numerai's"
        " diagnostics.",
    )
    late: Literal["queue", "refuse"] = Field(
        default="queue",
        description="Predictions that are ready after their round's close: `queue` uploads them, and Numerai queues"
        " them for the next round, whose run replaces them; `refuse` fails instead.",
    )
    confirmation_seconds: float = Field(
        default=600.0,
        gt=0,
        le=3600,
        description="Seconds to wait until Numerai confirms an upload.",
    )

    def api_address(self, source: Literal["numerai", "practice"]) -> str:
        """Give the address of the Numerai API of a source.

        Raises
        ------
        BadInputError
            When the source is `practice` and no practice server is set.
        """
        if source == "numerai":
            return self.api_url
        if self.practice_url is None:
            msg = (
                "source 'practice' needs the address of a practice server in NUMERAI_PRACTICE_URL, which is not set:"
                " start one with `python -m practice`, or choose source 'numerai'"
            )
            raise BadInputError(msg)
        return self.practice_url


class NotificationSettings(_Settings):
    """The settings of notifications. They are separate, since a mistake in them must not fail the tasks of a run."""

    notify_apprise: str | None = Field(
        default=None,
        min_length=1,
        description="Airflow connection, of type *apprise*, with the addresses of the services that receive events:"
        " e-mail, chat, push messages. It needs the package `apache-airflow-providers-apprise`.",
    )
    notify_webhook: SecretHttpAddress | None = Field(
        default=None,
        description="Webhook URL that receives events as JSON. Never logged, as it often contains a secret.",
    )
    notify_email: str | None = Field(
        default=None,
        pattern=r"^[^@\s,;]+@[^@\s,;]+$",
        description="E-mail address that receives events, through Airflow's connection `smtp_default`.",
    )
    notifier: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="Import path of any Airflow notifier that is called as well, such as"
        " `airflow.providers.slack.notifications.slack.SlackNotifier`.",
    )
    notifier_arguments: Annotated[dict[str, Any], NoDecode, BeforeValidator(_from_json)] = Field(
        default_factory=dict,
        repr=False,
        description="JSON object of its arguments. Its templates may use `event`: `{{ event.text }}`.",
    )
    notify_events: Annotated[tuple[Event, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=get_args(Event),
        description="Events to notify about (comma-separated): a task that failed, at once (`task_failed`); `failed`"
        " runs; `missed` rounds; `late` submissions; `finished` runs; an `approval` that waits for a user; nothing"
        " submitted shortly before the `deadline`.",
    )
    alarm_minutes: int = Field(
        default=15,
        ge=1,
        le=720,
        description="Minutes before a round closes at which the event `deadline` is sent, if nothing is submitted.",
    )


SETTINGS_FIELDS = Settings.model_fields | NotificationSettings.model_fields
"""All settings: name → field."""
_Kind = TypeVar("_Kind", bound=_Settings)
_SECRET = frozenset({"notify_webhook", "notifier_arguments"})


def describe_validation_error(error: ValidationError, name_of: dict[str, str] | None = None) -> str:
    """Format pydantic's findings in one line: each setting's name, its value (unless it is a secret) and the reason."""
    findings = []
    for finding in error.errors(include_url=False):
        field = ".".join(str(part) for part in finding["loc"][:1])
        name = (name_of or {}).get(field, field)
        reason = finding["msg"].removeprefix("Value error, ")
        value = "…" if field in _SECRET else repr(finding["input"])
        findings.append(f"{name}={value}: {reason}" if name else reason)
    return "; ".join(findings)


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings of this process from its environment.

    Raises
    ------
    BadInputError
        Naming each invalid variable, its value and the reason.
    """
    return _load(Settings)


def load_notification_settings() -> NotificationSettings:
    """Read the settings of notifications from this process's environment.

    Raises
    ------
    BadInputError
        As for :func:`load_settings`.
    """
    return _load(NotificationSettings)


def _load(kind: type[_Kind]) -> _Kind:
    try:
        return kind()
    except ValidationError as error:
        names = {field: _variable(field) for field in kind.model_fields}
        raise BadInputError(describe_validation_error(error, names)) from None
