"""The stables of ``stables.yaml``: valid entries, and mistakes that are reported and never raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Stable, StableBuilder, Submissions, listed_submissions
from numerai_pipeline.models.registry import load_registry
from tests.samples import ROOT

MODELS = ("svm", "xgboost")
PREDICTIONS = (*MODELS, "ensemble_selection")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stables.yaml"
    monkeypatch.setenv("NUMERAI_STABLES", str(path))
    return path


def build(file: Path | None = None, text: str = "", last_valid: dict[str, Any] | None = None) -> dict[str, Stable]:
    if file is not None:
        file.write_text(text)
    load_settings.cache_clear()
    found = StableBuilder(load_settings(), MODELS, PREDICTIONS, last_valid or {}).build()
    names = [stable.name for stable in found]
    assert names[0] == "tournament"
    assert len(set(names)) == len(names)
    return {stable.name: stable for stable in found}


def test_stables_without_the_file_are_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SCHEDULE", "tue,sat")
    monkeypatch.setenv("NUMERAI_SUBMIT", "true")
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=svm")
    assert build() == {"tournament": Stable("tournament", "tue,sat", submissions=Submissions({"alpha": "svm"}, True))}


def test_stables_of_the_file_are_beside_the_default_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=svm")
    stables = build(
        file,
        """
        stables:
          - name: weekday
            schedule: "fri,Tue"
            parameters: {models: [svm], automl_minutes: 5, fit: never}
            submissions: {beta: ensemble_selection}
          - name: rehearsal
            schedule: off
        """,
    )
    assert [(name, stable.dag_id) for name, stable in stables.items()] == [
        ("tournament", "numerai_tournament"),
        ("weekday", "numerai_weekday"),
        ("rehearsal", "numerai_rehearsal"),
    ]
    assert all(stable.problem is None for stable in stables.values())
    weekday = stables["weekday"]
    assert (weekday.schedule, weekday.title) == ("tue,fri", "Numerai weekday")
    assert weekday.parameters == {"models": ["svm"], "automl_minutes": 5, "fit": "never"}
    assert (weekday.submissions.models, weekday.submissions.scheduled) == ({"beta": "ensemble_selection"}, True)
    # the settings' submissions are the default stable's only
    rehearsal = stables["rehearsal"]
    assert (rehearsal.schedule, rehearsal.submissions.models) == ("off", {})
    assert not rehearsal.submissions.scheduled
    assert stables["tournament"].submissions.models == {"alpha": "svm"}


def test_stable_named_tournament_configures_the_default_dag(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SUBMIT", "true")
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=svm")
    monkeypatch.setenv("NUMERAI_SCHEDULE", "sat")
    [stable] = build(file, "stables: [{name: tournament, schedule: all, parameters: {seed: 5}}]").values()
    assert (stable.schedule, stable.parameters) == ("tue,wed,thu,fri,sat", {"seed": 5})
    assert (stable.submissions.models, stable.submissions.scheduled) == ({"alpha": "svm"}, True)
    [stable] = build(file, "stables: [{name: tournament, submissions: {beta: xgboost}}]").values()
    assert (stable.schedule, stable.submissions.models) == ("sat", {"beta": "xgboost"})


def test_stable_parameter_submit_decides_about_scheduled_runs_only(file: Path) -> None:
    text = "stables: [{{name: a, parameters: {{submit: {}}}, submissions: {}}}]"
    for submit, submissions in (("true", "{}"), ("false", "{beta: svm}")):
        stable = build(file, text.format(submit, submissions))["a"]
        assert stable.submissions.scheduled == (submit == "true")
        assert stable.parameters == {}


@pytest.mark.parametrize(
    ("submit", "scheduled", "expected"),
    [
        (None, True, {"scheduled", "backfill"}),
        (None, False, set()),
        (True, False, {"scheduled", "backfill", "manual", "asset_triggered"}),
        (False, True, set()),
    ],
)
def test_submissions_unset_parameter_follows_the_stable_in_runs_of_airflow(
    submit: bool | None, scheduled: bool, expected: set[str]
) -> None:
    submissions, parameters = Submissions({}, scheduled), RunParameters(submit=submit)
    kinds = ("scheduled", "backfill", "manual", "asset_triggered")
    assert {kind for kind in kinds if submissions.is_submitting(parameters, kind)} == expected


MISTAKES = [
    ("{name: a, colour: red}", "a", "stable 'a': colour='red': unknown key; choose from name, schedule"),
    ("{name: a, parameters: {modles: [svm]}}", "a", "parameters.modles=['svm']: unknown key; choose from source"),
    ("{name: a, parameters: {models: [smv]}}", "a", "parameters.models='smv': no such model; choose from svm, xgboost"),
    ("{name: a, parameters: {automl_minutes: 0}}", "a", "parameters.automl_minutes=0: Input should be greater"),
    ("{name: a, parameters: {fit: often}}", "a", "parameters.fit='often': Input should be 'auto', 'always' or 'never'"),
    ("{name: a, parameters: {source: archive}}", "a", "source 'archive' needs an archive"),
    ("{name: a, parameters: 5}", "a", "parameters=5: Input should be a valid dictionary"),
    ("{name: a, submissions: {beta: smv}}", "a", "submissions.beta=smv: no model or ensemble 'smv'; choose from svm"),
    ("{name: a, submissions: {../b: svm}}", "a", "'../b' is not the name of a model at Numerai"),
    ("{name: a, submissions: [svm]}", "a", "submissions=['svm']: Input should be a valid dictionary"),
    ("{name: a, schedule: sunday}", "a", "schedule='sunday': 'sunday' is not a day on which rounds open; choose from"),
    ("{name: a, schedule: on}", "a", "schedule=True: Input should be a valid string"),
    ("{name: Week day}", "stable_1", "entry 1: name='Week day': not a name of up to 40 lower-case letters"),
    ("{name: housekeeping}", "stable_1", "entry 1: name='housekeeping': reserved"),
    ("{name: stable_7}", "stable_1", "entry 1: name='stable_7': reserved"),
    ("{schedule: sat}", "stable_1", "entry 1: name: missing"),
    ("just text", "stable_1", "entry 1: ='just text': Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("entry", "name", "expected"), MISTAKES)
def test_mistake_in_an_entry_is_a_problem_of_its_stable_only(file: Path, entry: str, name: str, expected: str) -> None:
    stables = build(file, f"stables: [{entry}, {{name: other}}]")
    problem = stables[name].problem or ""
    assert str(file) in problem
    assert expected.replace(": =", ": ") in problem
    assert problem.endswith("correct the file, and clear this task")
    assert (stables[name].schedule is None) == entry.endswith(("schedule: sunday}", "schedule: on}"))
    assert (stables[name].content, stables[name].parameters) == (None, {})
    assert stables["other"].problem is stables["tournament"].problem is None


def test_name_listed_twice_is_a_problem_of_that_stable(file: Path) -> None:
    stables = build(file, "stables: [{name: a, schedule: tue}, {name: a, schedule: wed}, {name: b}]")
    assert "stable 'a' is listed twice: give one of them another name" in (stables["a"].problem or "")
    assert stables["a"].schedule == "tue"
    assert stables["b"].problem is None


UNREADABLE = [
    (None, "cannot be read"),
    ("stables: [", "is not YAML"),
    ("a: 1\na: 2", "the key 'a' is there twice"),
    ("- name: a", "has no list 'stables'"),
    ("stables: {name: a}", "has no list 'stables'"),
    ("", "has no list 'stables'"),
    ("[" * 5_000, "is not YAML"),
    (b"\xff\xfe\x00", "cannot be read"),
]


@pytest.mark.parametrize(("text", "expected"), UNREADABLE)
def test_unreadable_file_is_a_problem_of_every_stable(file: Path, text: str | bytes | None, expected: str) -> None:
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    last = {"weekday": {"name": "weekday", "schedule": "tue", "parameters": {"seed": 5}}}
    stables = build(last_valid=last)
    assert list(stables) == ["tournament", "weekday"]
    for stable in stables.values():
        assert str(file) in (stable.problem or "")
        assert expected in (stable.problem or "")
    # tasks of runs that have begun
    assert (stables["weekday"].schedule, stables["weekday"].parameters) == ("tue", {"seed": 5})
    assert list(build()) == ["tournament"]


def test_unknown_key_beside_the_list_is_a_problem_of_every_stable(file: Path) -> None:
    stables = build(file, "stable: []\nstables: [{name: a, parameters: {seed: 5}}]")
    assert all("unknown key stable beside 'stables'" in (stable.problem or "") for stable in stables.values())
    assert stables["a"].parameters == {"seed": 5}


def test_mistake_leaves_the_last_valid_version_to_runs_that_have_begun(file: Path) -> None:
    text = "stables: [{name: a, schedule: tue, parameters: {seed: 5}, submissions: {beta: svm}}]"
    valid = build(file, text)["a"]
    assert valid.content is not None
    broken = build(file, text.replace("seed: 5", "seed: -5"), {"a": valid.content})["a"]
    assert broken.problem
    assert (broken.parameters, broken.submissions, broken.schedule) == ({"seed": 5}, valid.submissions, "tue")
    # it may be of another release
    for content in ({"name": "a", "parameters": {"gone": 1}}, {"name": "a", "submissions": {"beta": "gone"}}, [5]):
        assert build(last_valid={"a": content})["a"].parameters == {}


def test_stale_name_in_numerai_submissions_is_a_problem_of_the_default_stable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=smv")
    stables = build(file, "stables: [{name: a}]")
    expected = "NUMERAI_SUBMISSIONS: alpha=smv: no model or ensemble 'smv'; choose from svm, xgboost, ensemble_sel"
    assert expected in (stables["tournament"].problem or "")
    assert stables["a"].problem is None
    replaced = build(file, "stables: [{name: tournament, submissions: {alpha: svm}}]")
    assert replaced["tournament"].problem is None


def test_merged_keys_of_yaml_are_not_twice(file: Path) -> None:
    stables = build(
        file,
        """
        stables:
          - name: a
            parameters: &base {seed: 5, models: [svm]}
          - name: b
            parameters: {<<: *base, seed: 6}
        """,
    )
    assert stables["b"].parameters == {"seed": 6, "models": ["svm"]}


def test_listed_submissions_are_those_of_all_stables(file: Path) -> None:
    file.write_text("stables: [{name: a, submissions: {alpha: svm}}, {name: b, submissions: {beta: smv}}, 5]")
    assert listed_submissions(file) == {"alpha": "svm", "beta": "smv"}
    assert listed_submissions(None) == listed_submissions(file.with_name("none")) == {}


def test_example_of_the_documentation_is_valid(file: Path) -> None:
    registry = load_registry(ROOT / "model_images")
    file.write_text((ROOT / "docs" / "examples" / "stables.yaml").read_text())
    load_settings.cache_clear()
    stables = StableBuilder(load_settings(), registry.models, registry.predictions).build()
    assert [(stable.name, stable.problem) for stable in stables] == [
        ("tournament", None),
        ("weekday", None),
        ("rehearsal", None),
    ]
    assert [stable.submissions.scheduled for stable in stables] == [True, True, False]
