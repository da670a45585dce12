"""The options of the command line: a pydantic model for each command, with a helpful error for each invalid option.

``make run MODELS=svm ARCHIVE="my data.zip"`` passes its options in the environment variable MAKEFLAGS, where make
escapes their values; no shell evaluates them. ``python -m launcher run MODELS=svm`` takes the same texts as arguments.
The options of a run are the DAG's parameters under their upper-case names. The descriptions are those of ``make help``.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from launcher.errors import UsageError
from numerai_pipeline.core.eras import weeks_until_target_known
from numerai_pipeline.core.parameters import RunParameters
from practice.rounds import CalendarName  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import ValidationInfo
    from pydantic_core import ErrorDetails

PRACTICE_AUTOML_MINUTES = 1
DEFAULT_WEEKS = 8


def _parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        msg = "not a date; write it as in 2026-06-27"
        raise ValueError(msg) from None


Day = Annotated[date, BeforeValidator(_parse_day)]


class Options(BaseModel):
    """The options of every command."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=str.upper)
    excluded: ClassVar[frozenset[str]] = frozenset()
    """Inherited options that the command does not have."""

    no_install: bool = Field(
        default=False, description="1: never install anything with apt-get; report missing packages instead"
    )

    @property
    def may_install(self) -> bool:
        """Whether missing Debian packages may be installed."""
        return not self.no_install


class UpOptions(Options):
    """The options of ``make up``, which all commands with an Airflow on this machine have."""

    calendar: CalendarName = Field(
        "always-open",
        description="make run and make up: hours of the simulator's rounds, always-open or strict (Numerai's)",
    )
    port: int = Field(8080, ge=1024, le=65535, description="port of Airflow's web page (8080, or the next free one)")


class RunOptions(UpOptions, RunParameters):
    """The options of ``make run``: the DAG's parameters, checked together, and those of its Airflow."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: dict[str, str]) -> dict[str, Any]:
        filled = {"SOURCE": "archive" if given.get("ARCHIVE") else "practice", **given}
        if filled["SOURCE"] == "practice":
            # a first run should be short
            filled.setdefault("AUTOML_MINUTES", str(PRACTICE_AUTOML_MINUTES))
        return filled

    @field_validator("models", "targets", mode="before")
    @classmethod
    def _split_list(cls, text: str | list[str]) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()] if isinstance(text, str) else text

    @field_validator("models")
    @classmethod
    def _check_models(cls, names: list[str], info: ValidationInfo) -> list[str]:
        known = (info.context or {}).get("models", names)
        for name in names:
            if name not in known:
                msg = f"{name!r} is not a model{_suggestion(name, known)}; choose from {', '.join(known)}"
                raise ValueError(msg)
        return names

    @field_validator("archive")
    @classmethod
    def _find_archive(cls, archive: str | None, info: ValidationInfo) -> str | None:
        if archive is None or re.match(r"https?://", archive):
            return archive
        path = (info.context or {}).get("directory", Path.cwd()) / Path(archive).expanduser()
        if "{round}" not in archive and not path.is_file():
            msg = f"there is no file {path}"
            raise ValueError(msg)
        return str(path)

    @property
    def conf(self) -> dict[str, Any]:
        """The parameters to trigger the DAG with: the given ones, and always the source."""
        return {name: getattr(self, name) for name in RunParameters.model_fields if name in self.model_fields_set}


@dataclass(frozen=True)
class BacktestRange:
    """The range of a backtest: first and last day of the rounds' openings, and the maximum number of parallel runs."""

    first: date
    last: date
    at_once: int = 2


def _today() -> date:
    return datetime.now(UTC).date()


class BacktestOptions(RunOptions):
    """The options of ``make backtest``, which selects rounds by their weeks."""

    excluded = frozenset({"ROUND", "WALK_FORWARD", "ARCHIVE", "SUBMIT", "REPLACE", "CALENDAR"})

    weeks: int | None = Field(
        None,
        ge=1,
        le=1500,
        description="number of weeks (8), up to the last whose targets are known (without TARGET: 14 weeks ago)",
    )
    first: Day | None = Field(
        None, alias="FROM", description="first day on which a round may have opened, such as FROM=2026-06-01"
    )
    last: Day | None = Field(None, alias="TO", description="last day on which a round may have opened")
    at_once: int = Field(2, ge=1, le=16, description="number of weeks that may run in parallel (2)")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        _ = self.backtest_range
        return self

    @property
    def backtest_range(self) -> BacktestRange:
        """The requested range, else the last weeks whose targets are known by now; ValueError for an invalid one."""
        today = _today()
        first, last, length = self.first, self.last, timedelta(days=7 * (self.weeks or DEFAULT_WEEKS) - 1)
        if self.weeks and first and last:
            msg = "WEEKS, FROM and TO are given: give at most two of them"
            raise ValueError(msg)
        if first and self.weeks:
            last = first + length
        # without a target each round's payout chooses it, which may be the one with the widest horizon
        last = last or today - timedelta(weeks=weeks_until_target_known(self.target))
        first = first or last - length
        if first > last:
            msg = f"FROM={first} is after {last}, the last day"
            raise ValueError(msg)
        if first > today:
            msg = f"FROM={first}: is in the future"
            raise ValueError(msg)
        return BacktestRange(first, last, self.at_once)


class ProgramOptions(Options):
    """The options of commands that run another program: the tests, and Airflow's command line."""

    arguments: str = Field(
        "",
        alias="ARGS",
        description='make test and test-fuzz: arguments of pytest, such as ARGS="-k options"; make airflow: of airflow',
    )


class FaultOptions(ProgramOptions):
    """The options of ``make test-faults``."""

    soak: int = Field(
        0, ge=0, le=99999, description="make test-faults: number of additional random kills (0), such as SOAK=200"
    )


class CleanOptions(Options):
    """The options of ``make clean``."""

    everything: bool = Field(
        default=False, alias="ALL", description="make clean: 1 also removes data/, .venv, .uv and the model images"
    )


class ServerOptions(Options):
    """The options of ``make server``: any setting of the server."""

    model_config = ConfigDict(extra="allow")

    @property
    def settings(self) -> dict[str, str]:
        """The given settings."""
        return self.__pydantic_extra__ or {}


class LogsOptions(Options):
    """The options of ``make server-logs``."""

    service: str = Field("", description="make server-logs: only this one")


class BackupOptions(Options):
    """The options of ``make server-backup``."""

    target: Path | None = Field(
        None, alias="TO", description="make server-backup: the folder of all backups (backups/)"
    )
    everything: bool = Field(
        default=False,
        alias="DATA",
        description="make server-backup: 1 for all of the data, also files that can be downloaded or computed again",
    )


class RestoreOptions(Options):
    """The options of ``make server-restore``."""

    backup: str = Field("", alias="FROM", description="make server-restore: the folder of a backup")


class UserOptions(Options):
    """The options of ``make server-user``."""

    name: str = Field("", description="make server-user: name of the user")
    role: str = Field("viewer", description="make server-user: viewer (the default), user, op or admin")


class WorkerOptions(Options):
    """The options of ``make worker``."""

    broker: str = Field("", description="make worker: address of the server's machine")
    name: str = Field("", description="make worker: name of the worker (the machine's)")
    queues: str = Field("", description="make worker: the queues of its tasks (default,cpu,big-memory)")


COMMAND_OPTIONS: dict[str, type[Options]] = {
    "run": RunOptions,
    "backtest": BacktestOptions,
    "up": UpOptions,
    "airflow": ProgramOptions,
    "down": Options,
    "images": Options,
    "server": ServerOptions,
    "server-down": Options,
    "server-logs": LogsOptions,
    "server-upgrade": Options,
    "server-backup": BackupOptions,
    "server-restore": RestoreOptions,
    "server-user": UserOptions,
    "worker": WorkerOptions,
    "check": Options,
    "test": ProgramOptions,
    "test-faults": FaultOptions,
    "test-fuzz": ProgramOptions,
    "test-server": ProgramOptions,
    "clean": CleanOptions,
}


def parse_makeflags(makeflags: str) -> dict[str, str]:
    """Parse the variables of make's command line from MAKEFLAGS.

    Make writes its own flags first, then ``--``, then ``NAME=value`` with blanks and backslashes of the value escaped
    by a backslash and each dollar sign doubled.
    """
    _, _, arguments = f" {makeflags}".partition(" -- ")
    overrides = {}
    # an argument is a sequence of escaped characters and of characters that are not blank
    for argument in re.findall(r"(?:\\.|[^\s\\])+", arguments, flags=re.DOTALL):
        plain = re.sub(r"\\(.)", r"\1", argument, flags=re.DOTALL).replace("$$", "$")
        name, equals, value = plain.partition("=")
        if equals:
            overrides[name.rstrip(":+?!")] = value
    return overrides


def parse_assignments(arguments: Iterable[str]) -> dict[str, str]:
    """Parse ``NAME=value`` arguments; UsageError for one of another form."""
    overrides = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            msg = f"{argument!r} is not an option: write NAME=value, such as MODELS=svm"
            raise UsageError(msg)
        overrides[name] = value
    return overrides


def parse_options(
    command: str,
    overrides: Mapping[str, str],
    model_names: Sequence[str] = (),
    *,
    directory: Path | None = None,
    server_settings: Sequence[str] = (),
) -> Options:
    """Validate the options of a command, each and in combination; an empty value counts as not given.

    Parameters
    ----------
    command, overrides
        The command, such as run or server-backup, and its given options.
    model_names, server_settings
        The models that can be selected, and the settings that are the options of `make server`.
    directory
        The base of a relative path of an archive; the working directory by default.

    Raises
    ------
    UsageError
        Naming every invalid option, the reason, and the valid choices.
    """
    model = COMMAND_OPTIONS[command]
    known = [name for field in model.model_fields.values() if (name := str(field.alias)) not in model.excluded]
    is_server = model is ServerOptions
    if is_server:
        known = [*server_settings, *(name for name in overrides if name.startswith("NUMERAI_")), *known]
    findings = [
        f"make {command} has no option {name}{_suggestion(name, known)}" for name in overrides if name not in known
    ]
    given = {name: text for name, text in overrides.items() if name in known and (is_server or text.strip())}
    if os.environ.get("NO_INSTALL"):
        given.setdefault("NO_INSTALL", os.environ["NO_INSTALL"])
    try:
        options = model.model_validate(
            {name: text if is_server else text.strip() for name, text in given.items()},
            context={"models": list(model_names), "directory": directory or Path.cwd()},
        )
    except ValidationError as error:
        findings += [_describe(model, finding) for finding in error.errors()]
    if findings:
        listed = [f"The options of make {command}: {', '.join(known)}"] if set(overrides).difference(known) else []
        raise UsageError("\n  ".join(findings), *listed, "The descriptions of all options: make help")
    return options


def _describe(model: type[Options], finding: ErrorDetails) -> str:
    reason = finding["msg"].removeprefix("Value error, ")
    if not finding["loc"]:
        return reason
    name = finding["loc"][0]
    if finding["type"] != "value_error":
        description = next(field.description for field in model.model_fields.values() if field.alias == name)
        remedy = "write 1 or 0" if finding["type"] == "bool_parsing" else f"{reason[0].lower()}{reason[1:]}"
        reason = f"{remedy}. {description}"
    return f"{name}={finding['input']}: {reason}"


def _suggestion(name: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), {choice.lower(): choice for choice in choices}, n=1, cutoff=0.5)
    return f" (did you mean {next(choice for choice in choices if choice.lower() == close[0])}?)" if close else ""
