"""Parameters of one run, from which the trigger form of the web UI and the options of ``make run`` are derived.

One declaration serves three readers: Airflow's trigger form (:func:`form_fields`), the first task of a run, which
checks them together (:func:`parse_parameters`), and the command line, whose options are the upper-case names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import describe_validation_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LONGEST_SEARCH = 3 * 24 * 60  # minutes
MOST_TARGETS = 10  # of the parameter `targets`
DATA, MODELS, RUN = "Data", "Models", "Run"


def _field(default: Any, section: str, title: str, description: str, **checks: Any) -> Any:
    return Field(
        default=default, title=title, description=description, json_schema_extra={"section": section}, **checks
    )


class RunParameters(BaseModel):
    """The parameters of one run, checked together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["numerai", "practice", "archive"] = _field(
        "numerai",
        DATA,
        "Source",
        "`numerai`: this round's data from Numerai. `practice`: a simulated tournament's."
        " `archive`: a zip of the classic layout.",
    )
    archive: str | None = _field(
        None,
        DATA,
        "Archive",
        "For source `archive`: the path or https address of a zip of the classic layout; `{round}` in it is replaced"
        " by the round's number.",
    )
    round: int | None = _field(
        None,
        DATA,
        "Round",
        "The round's number; empty for the round that this run's date belongs to.",
        ge=1,
        le=1_000_000,
    )
    version: str = _field(
        "latest",
        DATA,
        "Dataset version",
        "Such as `v5.3`, or `latest` for the newest the server lists.",
        pattern=r"^(latest|v\d+(\.\d+)*)$",
    )
    feature_set: str = _field(
        "small",
        DATA,
        "Feature set",
        "A feature set of the dataset's features.json (`small`, `medium`, `all`, …). Archives have one set only.",
        pattern=r"^\w+$",
    )
    target: str | None = _field(
        None,
        DATA,
        "Target",
        "The target to learn, such as `target_ender_20` or `target_bernie`; empty for the dataset's default, which the"
        " run names.",
        pattern=r"^target\w*$",
    )
    targets: list[Annotated[str, Field(pattern=r"^target_\w+$")]] = _field(
        [],
        DATA,
        "Further targets",
        "Up to 10 targets to learn beside it, one a line, such as `target_cyrusd_60` or any other of the dataset's"
        " `features.json`. Models that take several targets make a fit for each, and predict the mean of their ranks;"
        " scores are those of the main target.",
        max_length=MOST_TARGETS,
    )
    every_nth_era: int = _field(
        1,
        DATA,
        "Every n-th era",
        "Train on every n-th era only (overlapping weekly targets make 4 a cheap choice). Predictions cover all rows.",
        ge=1,
        le=52,
    )
    walk_forward: bool = _field(
        True,
        DATA,
        "Walk forward",
        "For a past round (backfilled, or selected by number) whose live data is no longer served. On: train on the"
        " data known at that time, predict that week's rows, score on their true targets. Off: the run fails.",
    )
    embargo: int | None = _field(
        None,
        DATA,
        "Embargo",
        "Eras left out between training and the week of a walk-forward run; empty for the default of the target's"
        " horizon: 8 for 20 days ahead, 16 for 60.",
        ge=0,
        le=104,
    )
    refit_every: int = _field(
        1,
        DATA,
        "Refit every n weeks",
        "Weeks that share one fit in walk-forward runs: each week is predicted by the fit of its group's first week,"
        " which uses only data known at that time.",
        ge=1,
        le=104,
    )
    models: list[str] = _field([], MODELS, "Models", "The models to run; all of them if none is selected.")
    fit: Literal["auto", "always", "never"] = _field(
        "auto",
        MODELS,
        "Fit",
        "`auto`: a new fit when the dataset has changed and the round is Saturday's, else the newest finished fit."
        " `always`: a new fit for a changed dataset on every day. `never`: the newest finished fit.",
    )
    automl_minutes: int = _field(
        10, MODELS, "AutoML minutes", "Search time of each AutoML model: 1 minute to 3 days.", ge=1, le=LONGEST_SEARCH
    )
    seed: int = _field(67, MODELS, "Seed", "The seed of every random choice.", ge=0, le=2**31 - 1)
    force: bool = _field(
        False, RUN, "Compute again", "Compute everything again, including results that are up to date."
    )

    submit: bool | None = _field(
        None,
        RUN,
        "Submit",
        "Upload the predictions of the live rows to Numerai, or to the simulated tournament. If not set, scheduled runs"
        " follow `NUMERAI_SUBMIT` or their stable, and manual runs do not submit.",
    )
    replace: bool = _field(
        False,
        RUN,
        "Replace",
        "Replace other predictions that another run has submitted for the same round and model. Otherwise these models"
        " are refused.",
    )

    @property
    def further_targets(self) -> tuple[str, ...]:
        """The targets to learn beside the main one: sorted, each once."""
        return without_target(self.targets, self.target)

    def selects(self, models: Iterable[str]) -> bool:
        """Whether any of these models is selected: in ``models``, or any model if that is empty."""
        return not self.models or not set(self.models).isdisjoint(models)

    @model_validator(mode="after")
    def _choices_fit_together(self) -> RunParameters:
        if self.source == "archive" and not self.archive:
            msg = "source 'archive' needs an archive: give the path or https address of a zip"
            raise ValueError(msg)
        if self.source != "archive" and self.archive:
            msg = f"an archive is given ({self.archive!r}) but the source is {self.source!r}: choose source 'archive'"
            raise ValueError(msg)
        return self


def without_target(targets: Iterable[str], *excluded: str | None) -> tuple[str, ...]:
    """Return targets sorted, each once, without the excluded ones, such as the main target."""
    return tuple(sorted(set(targets).difference(excluded)))


def form_fields(model_names: Sequence[str], **defaults: Any) -> dict[str, dict[str, Any]]:
    """Describe every parameter as the JSON schema of a field of Airflow's trigger form.

    Parameters
    ----------
    model_names : sequence of str
        The models that can be selected.
    **defaults
        Defaults that differ from the declared ones.

    Returns
    -------
    dict
        Name of the parameter → keyword arguments of ``airflow.sdk.Param``: ``default``, ``type``, ``title``,
        ``description``, ``section`` and the bounds.
    """
    fields = {}
    for name, declared in RunParameters.model_json_schema()["properties"].items():
        schema = dict(declared)
        if "anyOf" in schema:
            alternatives = schema.pop("anyOf")
            schema["type"] = [alternative["type"] for alternative in alternatives]
            for alternative in alternatives:
                schema.update({key: value for key, value in alternative.items() if key != "type"})
        if name == "models":
            schema["items"] = {"type": "string", "enum": list(model_names)}
            schema["examples"] = list(model_names)
        schema["default"] = defaults.get(name, schema.get("default"))
        schema["description_md"] = schema.pop("description")
        fields[name] = schema
    return fields


def parse_parameters(choices: Mapping[str, Any]) -> RunParameters:
    """Check the parameters of a run, each by itself and all together.

    Raises
    ------
    BadInputError
        Naming each parameter, its value and its mistake.
    """
    try:
        return RunParameters.model_validate(dict(choices))
    except ValidationError as error:
        raise BadInputError(describe_validation_error(error)) from None
