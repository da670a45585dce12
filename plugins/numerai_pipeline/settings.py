"""What can be set for an installation, read once from the environment, checked, with one clear error for each mistake.

Every setting is an environment variable ``NUMERAI_<NAME>``. What differs from run to run is not here but in
``parameters.py``.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.round_days import WEEKLY, parse_days

NUMERAI_API_URL = "https://api-tournament.numer.ai"
LEAST_DAYS = 7
"""What was used within so many days, housekeeping never removes: it may still be read by a run that takes long."""


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


def _days_or_off(value: str) -> str:
    if value.strip().lower() == "off":
        return "off"
    try:
        return ",".join(parse_days(value))
    except ValueError as error:
        msg = f"{error}, or 'off'"
        raise ValueError(msg) from None


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
        msg = f"{value!r} names nothing"
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
    for place, (name, model) in enumerate(pairs):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            msg = f"{name!r} is not the name of a model at Numerai (letters, digits, _ and -)"
            raise ValueError(msg)
        if not model:
            msg = f"{name} gets nothing: name one of our models or ensembles"
            raise ValueError(msg)
        if name in [other for other, _ in pairs[:place]]:
            msg = f"{name} is named twice: a model at Numerai gets the predictions of one of ours"
            raise ValueError(msg)
    return dict(pairs)


def _constraint(value: str) -> str:
    if not re.fullmatch(r"(node|engine)\.[\w.-]+\s*(==|!=)\s*[^\s=!]+", value):
        msg = f"{value!r} is no constraint of a swarm, such as node.labels.numerai==models or node.role!=manager"
        raise ValueError(msg)
    return value


Event = Literal["failed", "missed", "finished"]
Constraint = Annotated[str, AfterValidator(_constraint)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]
SecretHttpAddress = Annotated[SecretStr, AfterValidator(_secret_http_address)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def _default_data_dir() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "numerai-data"


class Settings(BaseSettings):
    """The settings of an installation; each field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix="NUMERAI_", extra="ignore", frozen=True, env_ignore_empty=True)

    data_dir: AbsolutePath = Field(
        default_factory=_default_data_dir,
        description="The shared data volume as Airflow's tasks see it; `numerai-data` in Airflow's home by default.",
    )
    data_dir_on_host: AbsolutePath | None = Field(
        default=None,
        description="The same volume as the Docker host sees it. Found by itself: it is `data_dir` where Airflow runs"
        " on the host, and read from the container's own mounts where Airflow runs in a container.",
    )
    api_url: HttpAddress = Field(
        default=NUMERAI_API_URL,
        description="Address of the Numerai API for the source `numerai`.",
    )
    practice_url: HttpAddress | None = Field(
        default=None,
        description="Address of a practice season's server for the source `practice`.",
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
        description="User (and group) id of the model containers; never root. Airflow's own by default, or 10001 where"
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
        " on any node of a Docker Swarm (`docs/swarm.md`).",
    )
    swarm_network: str = Field(
        default="numerai-models",
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="Overlay network of the models in a swarm; made when it is not there, as one that leads nowhere.",
    )
    swarm_constraints: Annotated[tuple[Constraint, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        description="Placement constraints of the models in a swarm, by comma, such as `node.labels.numerai==models`.",
    )
    pool: str = Field(default="numerai_models", min_length=1, description="Airflow pool that bounds the models' load.")
    big_memory: int | None = Field(
        default=None,
        ge=1,
        description="Memory, in MiB, from which a model's task goes to Airflow's queue `big-memory`, and others' to"
        " `cpu`, for Celery's workers of different sizes; all are in the default queue if it is not set.",
    )
    schedule: Annotated[str, AfterValidator(_days_or_off)] = Field(
        default=WEEKLY,
        description="The days whose rounds are run: any of `tue`, `wed`, `thu`, `fri`, `sat` by comma, or `off`: then"
        " nothing starts by itself, and backfills are of Saturday's rounds."
        " Saturday's round, whose window is the long one, by default.",
    )
    round_poll: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds between two looks whether a round has opened; a little more each time, at random.",
    )
    owner: str = Field(default="numerai", min_length=1, description="Owner of the DAG, as the web UI shows it.")
    http_timeout: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a server to connect or to send the next bytes.",
    )
    housekeeping: bool = Field(
        default=True, description="Whether old files and containers are removed every week; by hand they can be anyway."
    )
    keep_rounds: int = Field(
        default=12,
        ge=1,
        le=100_000,
        description="Housekeeping keeps the files of so many last rounds of each source, whatever their age.",
    )
    keep_days: int = Field(
        default=60,
        ge=LEAST_DAYS,
        le=36_500,
        description="Housekeeping removes files of other rounds, and downloads, that were not used for so many days.",
    )
    engine_patience: float = Field(
        default=180.0,
        gt=0,
        le=86_400,
        description="Seconds that a task waits for a Docker engine that does not answer, such as one that is restarted,"
        " before it fails; its next try goes on with the same container.",
    )
    keep_container_days: int = Field(
        default=1,
        ge=1,
        le=36_500,
        description="Housekeeping removes containers for which no task waits so many days after they ended or, where"
        " one still works, began. The start of a run does so at once.",
    )
    notify_webhook: SecretHttpAddress | None = Field(
        default=None,
        description="Address to which what becomes of runs is posted as JSON. Never logged: it often is a secret.",
    )
    notify_email: str | None = Field(
        default=None,
        pattern=r"^[^@\s,;]+@[^@\s,;]+$",
        description="E-mail address that is told what becomes of runs, through Airflow's connection `smtp_default`.",
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
        description="JSON object of its arguments. Its templates may use `news`: `{{ news.text }}`.",
    )
    notify_of: Annotated[tuple[Event, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=("failed", "missed", "finished"),
        description="What is told, by comma: `failed` runs, `missed` rounds, `finished` runs.",
    )

    submit: bool = Field(
        default=False,
        description="Whether runs submit to Numerai unless they are told otherwise: what the run parameter `submit`"
        " is by default. The schedule has no other way to be told.",
    )
    submissions: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapping)] = Field(
        default_factory=dict,
        description="Which model at Numerai gets whose predictions: `name=model,name=model` or a JSON object, with the"
        " Numerai model before the equals sign, and one of ours or an ensemble (`ensemble_selection`) after it.",
    )
    approve_submissions: bool = Field(
        default=False, description="Whether somebody has to approve in the web UI before anything is submitted."
    )
    approval_hours: float = Field(
        default=36.0,
        gt=0,
        le=24 * 7,
        description="Hours to wait for that approval; then nothing is submitted, and the run fails.",
    )
    diagnostics: bool = Field(
        default=False,
        description="Whether what is submitted is also sent to Numerai's diagnostics, with its validation rows.",
    )
    confirmation_seconds: float = Field(
        default=600.0,
        gt=0,
        le=3600,
        description="Seconds to wait until Numerai confirms an upload.",
    )

    def api_address(self, source: Literal["numerai", "practice"]) -> str:
        """Address of the Numerai API that a source stands for.

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


_SECRET = frozenset({"notify_webhook", "notifier_arguments"})


def describe_validation_error(error: ValidationError, name_of: dict[str, str] | None = None) -> str:
    """Put pydantic's findings in one line: each setting's name, its value (if no secret) and what is wrong with it."""
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
        Naming each variable, its value and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as error:
        names = {field: f"NUMERAI_{field.upper()}" for field in Settings.model_fields}
        raise BadInputError(describe_validation_error(error, names)) from None
