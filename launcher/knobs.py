"""Knobs: what can be chosen on the command line, and a helpful word about each wrong one.

``make run MODELS=svm ARCHIVE="my data.zip"`` hands its knobs on in the environment variable MAKEFLAGS, where make
escapes whatever they contain; no shell ever reads them. ``python -m launcher run MODELS=svm`` takes the same words as
arguments. The knobs of a run are the DAG's parameters under their upper-case names.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from launcher.errors import UsageError
from launcher.weeks import Weeks, read_weeks
from numerai_pipeline.errors import BadInputError
from numerai_pipeline.parameters import form_fields, parse_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

PRACTICE_AUTOML_MINUTES = 1
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
LAUNCHER_KNOBS = {
    "run": ("PORT", "NO_INSTALL"),
    "backtest": ("WEEKS", "FROM", "TO", "AT_ONCE", "PORT", "NO_INSTALL"),
    "up": ("PORT", "NO_INSTALL"),
    "test": ("ARGS", "NO_INSTALL"),
    "test-faults": ("SOAK", "ARGS", "NO_INSTALL"),
    "test-fuzz": ("ARGS", "NO_INSTALL"),
    "airflow": ("ARGS", "NO_INSTALL"),
}
# commands that run the DAG take its parameters as knobs
RUNNING = ("run", "backtest")
# a backtest chooses rounds by their weeks
NOT_FOR_A_BACKTEST = ("ROUND", "WALK_FORWARD", "ARCHIVE", "SUBMIT")
OTHER_KNOBS = {"images": ("NO_INSTALL",), "clean": ("ALL",), "check": ("NO_INSTALL",), "down": ()}


@dataclass(frozen=True)
class Knobs:
    """The choices made on the command line, checked.

    Attributes
    ----------
    conf
        What the DAG is triggered with: only what differs from its defaults, and always the source.
    port
        The port wanted for Airflow's web page.
    may_install
        Whether missing Debian packages may be installed.
    everything
        Whether `clean` also removes what took long to get.
    arguments
        Passed on to the program that the command runs: pytest, or airflow.
    weeks
        For a backtest, which weeks.
    soak
        For the fault suite, how many kills at random.
    """

    conf: dict[str, Any] = field(default_factory=dict)
    port: int = 8080
    may_install: bool = True
    everything: bool = False
    arguments: str = ""
    weeks: Weeks | None = None
    soak: int = 0


def overrides_from_make(makeflags: str) -> dict[str, str]:
    """Take the variables given on make's command line out of MAKEFLAGS.

    Make writes its own flags first, then ``--``, then ``NAME=value`` with blanks and backslashes of the value escaped
    by a backslash and each dollar sign doubled.
    """
    before, marker, words = f" {makeflags}".partition(" -- ")
    if not marker:
        return {}
    del before
    overrides = {}
    # a word is a run of escaped characters and of characters that are not blank
    for word in re.findall(r"(?:\\.|[^\s\\])+", words, flags=re.DOTALL):
        plain = re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL).replace("$$", "$")
        name, equals, value = plain.partition("=")
        if equals:
            overrides[name.rstrip(":+?!")] = value
    return overrides


def overrides_from_words(words: Iterable[str]) -> dict[str, str]:
    """Take ``NAME=value`` arguments apart.

    Raises
    ------
    UsageError
        For an argument that is not of that form.
    """
    overrides = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            msg = f"{word!r} is not a knob: write NAME=value, such as MODELS=svm"
            raise UsageError(msg)
        overrides[name] = value
    return overrides


def parse_knobs(
    command: str, overrides: Mapping[str, str], model_names: Sequence[str] = (), *, directory: Path | None = None
) -> Knobs:
    """Check the knobs of a command, one by one and together.

    Parameters
    ----------
    command
        Which command they are for: run, backtest, up, airflow, images, test, test-faults, test-fuzz, check, clean,
        down.
    overrides
        The knobs as given.
    model_names
        The models that can be picked.
    directory
        What a relative path of an archive starts from; the working directory by default.

    Raises
    ------
    UsageError
        Naming every knob that is wrong, why, and what is right.
    """
    schemas = _run_schemas(model_names) if command in RUNNING else {}
    if command == "backtest":
        schemas = {name: schema for name, schema in schemas.items() if name not in NOT_FOR_A_BACKTEST}
    own = LAUNCHER_KNOBS.get(command) or OTHER_KNOBS.get(command, ())
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
    own_findings = (port_finding, all_finding, install_finding, soak_finding)
    findings.extend(finding for finding in own_findings if finding)
    if command in RUNNING and not findings:
        findings.extend(_complete(conf, directory or Path.cwd()))
    weeks = None
    if command == "backtest":
        weeks, weeks_findings = read_weeks(launcher, conf.get("target"))
        findings.extend(weeks_findings)
    if findings:
        details = [f"The knobs of make {command}: {', '.join(known) or 'none'}", "What each is for: make help"]
        raise UsageError("; ".join(findings) if len(findings) == 1 else "\n  ".join(findings), *details)
    return Knobs(conf, port, not forbidden, everything, launcher.get("ARGS", ""), weeks, soak)


def _run_schemas(model_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name.upper(): schema for name, schema in form_fields(model_names).items()}


def _types(schema: Mapping[str, Any]) -> list[str]:
    declared = schema.get("type", "string")
    return [declared] if isinstance(declared, str) else list(declared)


def _read_value(name: str, text: str, schema: Mapping[str, Any], model_names: Sequence[str]) -> tuple[Any, str | None]:
    """Turn a knob's text into the value its schema wants; the second part says what is wrong with it."""
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
        return f"not of the right form. {schema.get('description_md', '')}".strip()
    return str(error.message)


def _bounds(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    return schema.get("minimum", "any"), schema.get("maximum", "any")


def _suggestion(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [choice.lower() for choice in choices], n=1, cutoff=0.5)
    if not close:
        return ""
    original = next(choice for choice in choices if choice.lower() == close[0])
    return f" (did you mean {original}?)"


def _unknown(name: str, known: Sequence[str], command: str) -> str:
    return f"make {command} has no knob {name}{_suggestion(name, known)}"


def _read_switch(name: str, text: str) -> tuple[bool, str | None]:
    word = text.strip().lower()
    if word in TRUE:
        return True, None
    return False, None if word in FALSE else f"{name}={text}: neither yes nor no; write 1 or 0"


def _read_count(name: str, text: str) -> tuple[int, str | None]:
    if re.fullmatch(r"\d{0,5}", text.strip()):
        return int(text.strip() or 0), None
    return 0, f"{name}={text}: not a whole number from 0 to 99999"


def _read_port(text: str | None) -> tuple[int, str | None]:
    if text is None:
        return Knobs.port, None
    if re.fullmatch(r"\d{1,5}", text) and 1024 <= int(text) <= 65535:
        return int(text), None
    return Knobs.port, f"PORT={text}: not a port; from 1024 to 65535"


def _complete(conf: dict[str, Any], directory: Path) -> list[str]:
    """Fill in what follows from the choices, and check them together; returns what is wrong."""
    archive = conf.get("archive")
    conf.setdefault("source", "archive" if archive else "practice")
    if conf["source"] == "practice":
        # a first look should not take the time that a stake deserves
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
