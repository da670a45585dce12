"""Stables: configurations of the tournament's DAG, from ``stables.yaml`` (``NUMERAI_STABLES``).

A stable has a name, a schedule, defaults of its run parameters, and its submissions. Its DAG is ``numerai_<name>``. The
stable ``tournament`` always exists; the settings ``NUMERAI_SCHEDULE``, ``NUMERAI_SUBMIT`` and ``NUMERAI_SUBMISSIONS``
configure it where the file does not.

A mistake in the file never fails the parsing of a DAG. It is the ``problem`` of its stable, with which the first task
of each new run fails; tasks of runs that have begun use the last valid version of the stable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.round_calendar import DEFAULT_DAYS, OFF, parse_schedule
from numerai_pipeline.core.settings import check_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numerai_pipeline.core.settings import Settings

DAG_PREFIX = "numerai_"
DEFAULT_STABLE = "tournament"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = re.compile(r"housekeeping|stable_\d+")
"""The other DAG of this bundle, and the names of entries whose name is wrong."""
_MOST_TEXT = 100
_SCHEDULED_TYPES = ("scheduled", "backfill")


def dag_id(stable: str) -> str:
    """Return the id of a stable's DAG."""
    return f"{DAG_PREFIX}{stable}"


def stable_name(dag: str) -> str:
    """Return the name of the stable that a DAG belongs to."""
    return dag.removeprefix(DAG_PREFIX)


@dataclass(frozen=True)
class Submissions:
    """The predictions that the runs of a stable submit.

    Attributes
    ----------
    models : dict
        Model at Numerai → our model or ensemble.
    scheduled : bool
        Whether scheduled and backfilled runs submit.
    setting : str
        Where they are configured, for messages.
    """

    models: dict[str, str] = field(default_factory=dict)
    scheduled: bool = False
    setting: str = "NUMERAI_SUBMISSIONS"

    def is_submitting(self, parameters: RunParameters, run_type: str) -> bool:
        """Whether a run submits: by its parameter, or else by the stable if Airflow created the run.

        Parameters
        ----------
        parameters : RunParameters
        run_type : str
            Airflow's type of the run, such as ``manual``.
        """
        if parameters.submit is not None:
            return parameters.submit
        return self.scheduled and run_type in _SCHEDULED_TYPES


@dataclass(frozen=True)
class Stable:
    """A configuration of the tournament's DAG.

    Attributes
    ----------
    name : str
        Its name; an entry whose name is wrong has that of its place in the file.
    schedule : str or None
        Days of its rounds or ``off``, as NUMERAI_SCHEDULE; None if the schedule is wrong.
    parameters : dict
        Defaults of run parameters that differ from the declared ones.
    submissions : Submissions
    problem : str or None
        The mistakes in its configuration, with the remedy.
    content : dict or None
        Its valid entry of the file; None if it has none.
    """

    name: str = DEFAULT_STABLE
    schedule: str | None = DEFAULT_DAYS
    parameters: dict[str, Any] = field(default_factory=dict)
    submissions: Submissions = field(default_factory=Submissions)
    problem: str | None = None
    content: dict[str, Any] | None = None

    @property
    def dag_id(self) -> str:
        """The id of its DAG."""
        return dag_id(self.name)

    @property
    def title(self) -> str:
        """Its name in the web UI."""
        return f"Numerai {self.name.replace('_', ' ')}"


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = "not a name of up to 40 lower-case letters, digits and _ that begins with a letter"
        raise ValueError(msg)
    if _RESERVED.fullmatch(value):
        msg = "reserved: choose another name"
        raise ValueError(msg)
    return value


def _schedule(value: object) -> object:
    if value is False:  # YAML reads the word off as false
        return OFF
    return parse_schedule(value) if isinstance(value, str) else value


def _submissions(value: dict[str, str]) -> dict[str, str]:
    return check_pairs(list(value.items()))


class _Entry(BaseModel):
    """An entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_check_name)]
    schedule: Annotated[str, BeforeValidator(_schedule)] | None = None
    parameters: RunParameters = Field(default_factory=RunParameters)
    submissions: Annotated[dict[str, str], AfterValidator(_submissions)] = Field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)


class _Loader(yaml.SafeLoader):
    """Reads YAML, but refuses a key that is there twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.composer.ComposerError(None, None, f"the key {twice!r} is there twice", node.start_mark)
        return node


@dataclass(frozen=True)
class StableBuilder:
    """Builds stables from the settings and the file.

    Attributes
    ----------
    settings : Settings
    models : sequence of str
        The models that can be selected.
    predictions : sequence of str
        Names of all predictions: models and ensembles.
    last_valid : mapping
        Stable → its entry when it was valid last.
    """

    settings: Settings
    models: Sequence[str]
    predictions: Sequence[str]
    last_valid: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> list[Stable]:
        """Return all stables, the default one first."""
        file = self.settings.stables
        if file is None:
            return [self._default()]
        entries, problem = _read(file)
        if problem is not None and not entries:
            entries = [{**content, "name": name} for name, content in self.last_valid.items()]
        built: dict[str, Stable] = {}
        for number, entry in enumerate(entries, start=1):
            stable = self._stable(file, number, entry, problem)
            if stable.name in built:
                twice = f"{file}: stable {stable.name!r} is listed twice: give one of them another name"
                stable = _with_problem(built[stable.name], twice)
            built[stable.name] = stable
        if DEFAULT_STABLE not in built:
            built[DEFAULT_STABLE] = _with_problem(self._default(), problem)
        return sorted(built.values(), key=lambda stable: stable.name != DEFAULT_STABLE)

    def _default(self) -> Stable:
        """Return the default stable as the settings configure it."""
        settings = self.settings
        findings = list(self._unknown_predictions("NUMERAI_SUBMISSIONS: ", settings.submissions))
        return Stable(
            DEFAULT_STABLE,
            settings.schedule,
            submissions=Submissions(settings.submissions, settings.submit),
            problem="; ".join(findings) or None,
        )

    def _stable(self, file: Path, number: int, content: Any, problem: str | None) -> Stable:
        found = content if isinstance(content, dict) else {}
        name = found.get("name")
        findings: list[str] = [problem] if problem else []
        try:
            entry = _Entry.model_validate(content)
        except ValidationError as error:
            mistakes = list(_describe(error))
            is_named = not any(mistake["loc"][:1] in ((), ("name",)) for mistake in error.errors(include_url=False))
        else:
            mistakes, is_named = list(self._unknown_names(entry)), True
        if not is_named:
            name = f"stable_{number}"
        name = str(name)
        where = f"{file}: stable {name!r}" if is_named else f"{file}: entry {number}"
        if mistakes:
            findings.append(f"{where}: {'; '.join(mistakes)}: correct the file, and clear this task")
            entry = self._last_valid(name)
        return self._from_entry(
            entry,
            name,
            schedule=_own_schedule(found, self.settings.schedule),
            where=f"{where}: submissions",
            problem="; ".join(findings) or None,
            is_valid=not mistakes,
        )

    def _last_valid(self, name: str) -> _Entry:
        try:
            entry = _Entry.model_validate(self.last_valid.get(name, {"name": DEFAULT_STABLE}))
        except ValidationError:  # of another release
            entry = _Entry(name=DEFAULT_STABLE)
        return _Entry(name=DEFAULT_STABLE) if any(self._unknown_names(entry)) else entry

    def _from_entry(
        self, entry: _Entry, name: str, *, schedule: str | None, where: str, problem: str | None, is_valid: bool
    ) -> Stable:
        parameters = entry.parameters.model_dump(mode="json", exclude_unset=True)
        submit = parameters.pop("submit", None)
        if name == DEFAULT_STABLE and "submissions" not in entry.model_fields_set:
            default = self._default()
            submissions = default.submissions
            problem = "; ".join(filter(None, (problem, default.problem))) or None
        else:
            submissions = Submissions(entry.submissions, bool(entry.submissions), where)
        if submit is not None:
            submissions = Submissions(submissions.models, submit, submissions.setting)
        content = entry.content() if is_valid else None
        return Stable(name, schedule, parameters, submissions, problem, content)

    def _unknown_names(self, entry: _Entry) -> Iterator[str]:
        for model in entry.parameters.models:
            if model not in self.models:
                yield f"parameters.models={model!r}: no such model; choose from {', '.join(self.models)}"
        yield from self._unknown_predictions("submissions.", entry.submissions)

    def _unknown_predictions(self, prefix: str, submissions: Mapping[str, str]) -> Iterator[str]:
        for name, model in submissions.items():
            if model not in self.predictions:
                known = ", ".join(self.predictions)
                yield f"{prefix}{name}={model}: no model or ensemble {model!r}; choose from {known}"


def listed_submissions(file: Path | None) -> dict[str, str]:
    """Return the submissions of all stables of the file, as far as they can be read."""
    entries = _read(file)[0] if file is not None else []
    found: dict[str, str] = {}
    for entry in entries:
        submissions = entry.get("submissions") if isinstance(entry, dict) else None
        if isinstance(submissions, dict):
            found |= {str(name): str(model) for name, model in submissions.items()}
    return found


def _read(file: Path) -> tuple[list[Any], str | None]:
    """Read the entries of the file, and the reason why it cannot be read or is not a list of stables."""
    remedy = "correct the file, and clear this task"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except (OSError, ValueError) as error:
        return [], f"{file} (NUMERAI_STABLES) cannot be read ({error}): {remedy}"
    except (yaml.YAMLError, RecursionError) as error:
        return [], f"{file} (NUMERAI_STABLES) is not YAML ({' '.join(str(error).split())}): {remedy}"
    entries = content.get("stables") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return [], f"{file} (NUMERAI_STABLES) has no list 'stables': write 'stables:' and an entry for each: {remedy}"
    others = [str(key) for key in content if key != "stables"]
    if others:
        return entries, f"{file}: unknown key {', '.join(others)} beside 'stables': {remedy}"
    return entries, None


def _own_schedule(content: Mapping[str, Any], default: str) -> str | None:
    """Return the schedule of an entry, which may have other mistakes; None if it is wrong."""
    value = content.get("schedule")
    if value is None:
        return default
    try:
        found = _schedule(value)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def _with_problem(stable: Stable, problem: str | None) -> Stable:
    problems = "; ".join(filter(None, (problem, stable.problem))) or None
    return Stable(stable.name, stable.schedule, stable.parameters, stable.submissions, problems, stable.content)


def _describe(error: ValidationError) -> Iterator[str]:
    """Describe each mistake: the key, its value and the reason."""
    for finding in error.errors(include_url=False):
        place = [str(part) for part in finding["loc"] if part != "[key]"]
        key, value = ".".join(place), repr(finding["input"])
        if len(value) > _MOST_TEXT:
            value = f"{value[:_MOST_TEXT]}…"
        if finding["type"] == "extra_forbidden":
            known = RunParameters.model_fields if place[0] == "parameters" else _Entry.model_fields
            yield f"{key}={value}: unknown key; choose from {', '.join(known)}"
        elif finding["type"] == "missing":
            yield f"{key}: missing"
        else:
            yield f"{key}={value}: {finding['msg'].removeprefix('Value error, ')}".removeprefix("=")
