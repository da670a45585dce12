"""The options of the command line, with a helpful error for each invalid one.

``make run MODELS=svm ARCHIVE="my data.zip"`` passes its options in the environment variable MAKEFLAGS, where make
escapes their values; no shell evaluates them. ``python -m launcher run MODELS=svm`` takes the same texts as arguments.
The options of a run are the DAG's parameters under their upper-case names.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonschema import Draft202012Validator

from launcher.backtest_range import BacktestRange, parse_range
from launcher.errors import UsageError
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.parameters import form_fields, parse_parameters
from practice.rounds import CalendarName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

PRACTICE_AUTOML_MINUTES = 1
CALENDARS = get_args(CalendarName)
"""Calendars of the simulator's rounds, the default first."""
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
COMMAND_OPTIONS: dict[str, tuple[str, ...]] = {
    "run": ("CALENDAR", "PORT", "NO_INSTALL"),
    "backtest": ("WEEKS", "FROM", "TO", "AT_ONCE", "PORT", "NO_INSTALL"),
    "up": ("CALENDAR", "PORT", "NO_INSTALL"),
    "test": ("ARGS", "NO_INSTALL"),
    "test-faults": ("SOAK", "ARGS", "NO_INSTALL"),
    "test-fuzz": ("ARGS", "NO_INSTALL"),
    "airflow": ("ARGS", "NO_INSTALL"),
    "server-logs": ("SERVICE",),
    "server-upgrade": ("NO_INSTALL",),
    "server-backup": ("TO", "DATA"),
    "server-restore": ("FROM", "NO_INSTALL"),
    "server-user": ("NAME", "ROLE"),
    "worker": ("BROKER", "NAME", "QUEUES", "NO_INSTALL"),
    "test-server": ("ARGS", "NO_INSTALL"),
    "images": ("NO_INSTALL",),
    "clean": ("ALL",),
    "check": ("NO_INSTALL",),
    "down": (),
    "server-down": (),
}
# commands that run the DAG take its parameters as options
RUN_COMMANDS = ("run", "backtest")
# commands of a server, which read their options themselves
SERVER_COMMANDS = (
    "server",
    "server-logs",
    "server-upgrade",
    "server-backup",
    "server-restore",
    "server-user",
    "worker",
)
# a backtest selects rounds by their weeks
NOT_FOR_BACKTEST = ("ROUND", "WALK_FORWARD", "ARCHIVE", "SUBMIT", "REPLACE")


@dataclass(frozen=True)
class Options:
    """The validated options of the command line.

    Attributes
    ----------
    conf
        The parameters to trigger the DAG with: the given ones, and always the source.
    port
        The first port to try for Airflow's web page.
    may_install
        Whether missing Debian packages may be installed.
    everything
        Whether `clean` also removes data, environments and images.
    arguments
        Arguments of the program that the command runs: pytest, or airflow.
    backtest_range
        The range of a backtest.
    server
        The options of a server command, as given.
    soak
        Number of random kills of the fault suite.
    calendar
        The calendar of the simulator's rounds, one of :data:`CALENDARS`.
    """

    conf: dict[str, Any] = field(default_factory=dict)
    port: int = 8080
    may_install: bool = True
    everything: bool = False
    arguments: str = ""
    backtest_range: BacktestRange | None = None
    server: dict[str, str] = field(default_factory=dict)
    soak: int = 0
    calendar: str = CALENDARS[0]


def parse_makeflags(makeflags: str) -> dict[str, str]:
    """Parse the variables of make's command line from MAKEFLAGS.

    Make writes its own flags first, then ``--``, then ``NAME=value`` with blanks and backslashes of the value escaped
    by a backslash and each dollar sign doubled.
    """
    _, marker, arguments = f" {makeflags}".partition(" -- ")
    if not marker:
        return {}
    overrides = {}
    # an argument is a sequence of escaped characters and of characters that are not blank
    for argument in re.findall(r"(?:\\.|[^\s\\])+", arguments, flags=re.DOTALL):
        plain = re.sub(r"\\(.)", r"\1", argument, flags=re.DOTALL).replace("$$", "$")
        name, equals, value = plain.partition("=")
        if equals:
            overrides[name.rstrip(":+?!")] = value
    return overrides


def parse_assignments(arguments: Iterable[str]) -> dict[str, str]:
    """Parse ``NAME=value`` arguments.

    Raises
    ------
    UsageError
        For an argument of another form.
    """
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
    """Validate the options of a command, each and in combination.

    Parameters
    ----------
    command
        The command, such as run or server-backup.
    overrides
        The given options.
    model_names
        The models that can be selected.
    directory
        The base of a relative path of an archive; the working directory by default.
    server_settings
        The settings of a server, which are the options of `make server`.

    Raises
    ------
    UsageError
        Naming every invalid option, the reason, and the valid choices.
    """
    schemas = _run_schemas(model_names) if command in RUN_COMMANDS else {}
    if command == "backtest":
        schemas = {name: schema for name, schema in schemas.items() if name not in NOT_FOR_BACKTEST}
    own = COMMAND_OPTIONS.get(command, ())
    if command == "server":
        own = (*server_settings, *(name for name in overrides if name.startswith("NUMERAI_")), "NO_INSTALL")
    known = [*schemas, *own]
    findings: list[str] = []
    conf: dict[str, Any] = {}
    launcher: dict[str, str] = {}
    for name, text in overrides.items():
        if name in schemas:
            value, finding = _read_value(name, text, schemas[name], model_names)
            findings.extend([finding] if finding else [])
            conf[name.lower()] = value
        elif name in own:
            launcher[name] = text
        else:
            findings.append(_unknown(name, known, command))
    port, port_finding = _read_port(launcher.get("PORT"))
    everything, all_finding = _read_switch("ALL", launcher.get("ALL", ""))
    forbidden, install_finding = _read_switch(
        "NO_INSTALL", launcher.get("NO_INSTALL", os.environ.get("NO_INSTALL", ""))
    )
    soak, soak_finding = _read_count("SOAK", launcher.get("SOAK", ""))
    calendar = launcher.get("CALENDAR", CALENDARS[0])
    calendar_finding = None if calendar in CALENDARS else f"CALENDAR={calendar}: choose from {', '.join(CALENDARS)}"
    own_findings = (port_finding, all_finding, install_finding, soak_finding, calendar_finding)
    findings.extend(finding for finding in own_findings if finding)
    if command in RUN_COMMANDS and not findings:
        findings.extend(_fill_defaults(conf, directory or Path.cwd()))
    selected_range = None
    if command == "backtest":
        selected_range, range_findings = parse_range(launcher, conf.get("target"))
        findings.extend(range_findings)
    if findings:
        details = [f"The options of make {command}: {', '.join(known) or 'none'}", "Their descriptions: make help"]
        raise UsageError("; ".join(findings) if len(findings) == 1 else "\n  ".join(findings), *details)
    server = (
        {name: text for name, text in launcher.items() if name != "NO_INSTALL"} if command in SERVER_COMMANDS else {}
    )
    arguments = launcher.get("ARGS", "")
    return Options(conf, port, not forbidden, everything, arguments, selected_range, server, soak, calendar)


def _run_schemas(model_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name.upper(): schema for name, schema in form_fields(model_names).items()}


def _types(schema: Mapping[str, Any]) -> list[str]:
    declared = schema.get("type", "string")
    return [declared] if isinstance(declared, str) else list(declared)


def _read_value(name: str, text: str, schema: Mapping[str, Any], model_names: Sequence[str]) -> tuple[Any, str | None]:
    """Convert an option's text to the type of its schema; returns the value and an error, if any."""
    types = _types(schema)
    text = text.strip()
    if "null" in types and not text:
        return None, None
    if "array" in types:
        value: Any = [part.strip() for part in text.split(",") if part.strip()]
    elif "boolean" in types:
        value, finding = _read_switch(name, text)
        return value, finding
    elif "integer" in types:
        if not re.fullmatch(r"[+-]?\d+", text):
            return None, f"{name}={text}: not a whole number"
        value = int(text)
    else:
        value = text
    error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    return value, None if error is None else f"{name}={text}: {_explain(error, schema, model_names)}"


def _explain(error: ValidationError, schema: Mapping[str, Any], model_names: Sequence[str]) -> str:
    if error.validator == "enum":
        choices = [str(choice) for choice in (schema.get("items") or schema)["enum"]]
        noun = "model" if list(model_names) == choices else "choice"
        suggestion = _suggestion(str(error.instance), choices)
        return f"{error.instance!r} is not a {noun}{suggestion}; choose from {', '.join(choices)}"
    if error.validator in {"minimum", "maximum"}:
        low, high = _bounds(schema)
        return f"out of bounds; from {low} to {high}"
    if error.validator == "pattern":
        return f"has the wrong form. {schema.get('description_md', '')}".strip()
    return str(error.message)


def _bounds(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    return schema.get("minimum", "any"), schema.get("maximum", "any")


def _suggestion(name: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1, cutoff=0.5)
    if not close:
        return ""
    original = next(choice for choice in choices if choice.lower() == close[0])
    return f" (did you mean {original}?)"


def _unknown(name: str, known: Sequence[str], command: str) -> str:
    return f"make {command} has no option {name}{_suggestion(name, known)}"


def _read_switch(name: str, text: str) -> tuple[bool, str | None]:
    value = text.strip().lower()
    if value in TRUE:
        return True, None
    return False, None if value in FALSE else f"{name}={text}: neither yes nor no; write 1 or 0"


def _read_count(name: str, text: str) -> tuple[int, str | None]:
    if re.fullmatch(r"\d{0,5}", text.strip()):
        return int(text.strip() or 0), None
    return 0, f"{name}={text}: not a whole number from 0 to 99999"


def _read_port(text: str | None) -> tuple[int, str | None]:
    if text is None:
        return Options.port, None
    if re.fullmatch(r"\d{1,5}", text) and 1024 <= int(text) <= 65535:
        return int(text), None
    return Options.port, f"PORT={text}: not a port; from 1024 to 65535"


def _fill_defaults(conf: dict[str, Any], directory: Path) -> list[str]:
    """Fill in defaults that depend on other options, and validate the combination; returns the errors."""
    archive = conf.get("archive")
    conf.setdefault("source", "archive" if archive else "practice")
    if conf["source"] == "practice":
        # a first run should be short
        conf.setdefault("automl_minutes", PRACTICE_AUTOML_MINUTES)
    if archive and not re.match(r"https?://", archive):
        path = directory / Path(archive).expanduser()
        conf["archive"] = str(path)
        if "{round}" not in archive and not path.is_file():
            return [f"ARCHIVE={archive}: there is no file {path}"]
    try:
        parse_parameters(conf)
    except BadInputError as error:
        return [str(error)]
    return []
