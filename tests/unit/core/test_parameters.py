from __future__ import annotations

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.parameters import RunParameters, form_fields, parse_parameters


def test_parse_parameters_defaults_run_every_model_on_numerai() -> None:
    parameters = parse_parameters({})
    assert parameters.source == "numerai"
    assert parameters.models == []
    assert parameters.seed == 67
    assert (parameters.fit, parameters.refit_every) == ("auto", 1)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"source": "yahoo"}, "source='yahoo': Input should be 'numerai', 'practice' or 'archive'"),
        ({"round": 0}, "round=0"),
        ({"seed": -1}, "seed=-1"),
        ({"fit": "sometimes"}, "fit='sometimes': Input should be 'auto', 'always' or 'never'"),
        ({"refit_every": 0}, "refit_every=0"),
        ({"refit_every": 105}, "refit_every=105"),
        ({"automl_minutes": 5000}, "automl_minutes=5000"),
        ({"version": "5.3"}, "version='5.3'"),
        ({"target": "ender"}, "target='ender'"),
        ({"targets": ["target_a", "ender"]}, "targets='ender'"),
        ({"targets": [f"target_{number}" for number in range(11)]}, "at most 10 items"),
        ({"colour": "red"}, "colour='red'"),
        ({"source": "archive"}, "needs an archive"),
        ({"archive": "/data/x.zip"}, "choose source 'archive'"),
    ],
)
def test_parse_parameters_invalid_value_is_named(choices: dict[str, object], says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_parameters(choices)
    assert says in str(caught.value)


def test_further_targets_are_sorted_and_without_the_main_one() -> None:
    assert parse_parameters({}).further_targets == ()
    targets = ["target_b_60", "target_a_20", "target_b_60", "target_c_20"]
    assert parse_parameters({"targets": targets}).further_targets == ("target_a_20", "target_b_60", "target_c_20")
    parameters = parse_parameters({"targets": targets, "target": "target_c_20"})
    assert parameters.further_targets == ("target_a_20", "target_b_60")


def test_form_fields_have_titles_and_descriptions() -> None:
    fields = form_fields(["svm", "xgboost"])
    assert set(fields) == set(RunParameters.model_fields)
    for name, field in fields.items():
        assert field["title"], name
        assert field["description_md"], name
        assert field["section"] in ("Data", "Models", "Run"), name


def test_form_fields_accept_and_reject_the_values_of_the_parser() -> None:
    params = {name: Param(**field) for name, field in form_fields(["svm", "xgboost"]).items()}
    assert {name: param.resolve() for name, param in params.items()} == parse_parameters({}).model_dump()
    assert params["round"].resolve(1335) == 1335
    assert params["round"].resolve(None) is None
    assert params["models"].resolve(["svm"]) == ["svm"]
    for name, wrong in [
        ("models", ["smv"]),
        ("targets", ["ender"]),
        ("round", 0),
        ("round", "x"),
        ("source", "yahoo"),
        ("seed", -1),
        ("force", "yes"),
    ]:
        with pytest.raises(ParamValidationError):
            params[name].resolve(wrong)


def test_form_fields_default_can_be_replaced() -> None:
    assert form_fields([], source="practice")["source"]["default"] == "practice"
