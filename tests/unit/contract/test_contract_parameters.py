"""Parameters: defaults, invalid values, and error messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from numerai_contract.exits import BadParameterError, Exit
from numerai_contract.parameters import THREAD_VARIABLES, Parameters


def test_parameters_empty_environment_has_defaults() -> None:
    parameters = Parameters({})
    parameters.check()
    assert parameters.seed == 67
    assert parameters.threads >= 1
    assert parameters.reporting is None
    assert parameters.inputs is None
    assert parameters.targets == ()
    assert parameters.time_limit is None
    assert parameters.time_limit_part is None
    assert parameters.memory_limit is None


def test_parameters_set_variables_are_read() -> None:
    parameters = Parameters(
        {
            "OPERATION": " svm ",
            "TRAINING": "/data/training.parquet",
            "REPORTING": "/data/reports/svm.json",
            "TIME_LIMIT": "300",
            "THREADS": "3",
            "MEMORY_LIMIT": "4096",
            "SEED": "0",
            "INPUTS": "0f3a",
            "TARGETS": "target_b, target_a",
        }
    )
    assert parameters.operation == "svm"
    assert parameters.training == Path("/data/training.parquet")
    assert parameters.reporting == Path("/data/reports/svm.json")
    assert (parameters.time_limit, parameters.threads, parameters.memory_limit) == (300, 3, 4096)
    assert (parameters.seed, parameters.inputs) == (0, "0f3a")
    assert parameters.targets == ("target_b", "target_a")


def test_parameters_blank_variable_counts_as_not_set() -> None:
    parameters = Parameters({"SEED": "  ", "OPERATION": ""})
    assert parameters.seed == 67
    with pytest.raises(BadParameterError, match="OPERATION is not set"):
        _ = parameters.operation


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("SEED", "abc", "a whole number from 0 to 4,294,967,295"),
        ("SEED", "-1", "a whole number from 0"),
        ("SEED", "1.5", "a whole number"),
        ("SEED", str(2**32), "a whole number"),
        ("THREADS", "0", "from 1 to 1,024"),
        ("MEMORY_LIMIT", "63", "of at least 64"),
        ("TIME_LIMIT", "0", "of at least 1"),
        ("TIME_LIMIT_PART", "soon", "of at least 1"),
        ("TARGETS", "target_a,feature_b", "different columns 'target_…', separated by commas"),
    ],
)
def test_check_invalid_value_names_variable_value_and_bounds(name: str, value: str, allowed: str) -> None:
    with pytest.raises(BadParameterError) as error:
        Parameters({name: value}).check()
    assert error.value.exit is Exit.BAD_PARAMETERS
    message = str(error.value)
    assert f"{name} is {value!r}" in message
    assert allowed in message


def test_getters_out_of_bounds_raise_bad_parameter() -> None:
    parameters = Parameters({"ROW_LIMIT": "50", "C": "0.1", "KIND": "linear", "RATE": "nan", "FAR": "1e9"})
    assert parameters.get_int("ROW_LIMIT", 10, at_least=50, at_most=50) == 50
    assert parameters.get_int("ABSENT", 10) == 10
    assert parameters.get_float("C", 1.0, at_least=0.1, at_most=0.1) == 0.1
    assert parameters.get_float("ABSENT", 2.5) == 2.5
    assert parameters.get_str("KIND", choices=("linear", "radial")) == "linear"
    with pytest.raises(BadParameterError, match="from 51 to 100"):
        parameters.get_int("ROW_LIMIT", at_least=51, at_most=100)
    with pytest.raises(BadParameterError, match="RATE is 'nan'"):
        parameters.get_float("RATE")
    with pytest.raises(BadParameterError, match="of at most 10"):
        parameters.get_float("FAR", at_most=10)
    with pytest.raises(BadParameterError, match="allowed are a, b"):
        parameters.get_str("KIND", choices=("a", "b"))


def test_limit_threads_sets_the_variables_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*THREAD_VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "99")
    Parameters({"THREADS": "2"}).limit_threads()
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
