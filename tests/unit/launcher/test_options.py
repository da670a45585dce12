from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import EXIT_USAGE, UsageError
from launcher.options import (
    COMMAND_OPTIONS,
    CleanOptions,
    FaultOptions,
    ProgramOptions,
    RunOptions,
    ServerOptions,
    parse_assignments,
    parse_makeflags,
    parse_options,
)
from launcher.paths import ROOT
from numerai_pipeline.core.parameters import form_fields

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ("svm", "xgboost", "wide_and_deep")


def error_for(**overrides: str) -> str:
    with pytest.raises(UsageError) as raised:
        parse_options("run", overrides, MODELS)
    assert raised.value.exit_code == EXIT_USAGE
    return "\n".join([raised.value.message, *raised.value.details])


def parse_run(overrides: dict[str, str], directory: Path | None = None) -> RunOptions:
    options = parse_options("run", overrides, MODELS, directory=directory)
    assert isinstance(options, RunOptions)
    return options


def test_run_uses_the_simulator_by_default() -> None:
    assert parse_run({}).conf == {"source": "practice", "automl_minutes": 1}


def test_options_are_converted_to_the_types_of_the_parameters() -> None:
    options = parse_run(
        {
            "MODELS": "svm, xgboost,",
            "AUTOML_MINUTES": "2",
            "FORCE": "yes",
            "SUBMIT": "1",
            "REPLACE": "1",
            "TARGET": "",
            "TARGETS": "target_ender_60, target_cyrusd_60",
            "SOURCE": "numerai",
            "PORT": "9000",
        }
    )
    assert options.conf == {
        "models": ["svm", "xgboost"],
        "automl_minutes": 2,
        "force": True,
        "submit": True,
        "replace": True,
        "targets": ["target_ender_60", "target_cyrusd_60"],
        "source": "numerai",
    }
    assert options.target is None
    assert options.port == 9000


def test_options_unknown_name_lists_the_valid_ones() -> None:
    report = error_for(MODEL="svm")
    assert "no option MODEL (did you mean MODELS?)" in report
    assert all(name.upper() in report for name in form_fields(MODELS))


def test_options_unknown_model_lists_the_models() -> None:
    report = error_for(MODELS="svn")
    assert "'svn' is not a model (did you mean svm?); choose from svm, xgboost, wide_and_deep" in report


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SOURCE", "practise", "input should be 'numerai', 'practice' or 'archive'"),
        ("AUTOML_MINUTES", "0", "input should be greater than or equal to 1. Search time of each AutoML model"),
        ("AUTOML_MINUTES", "4321", "input should be less than or equal to 4320"),
        ("AUTOML_MINUTES", "2.5", "input should be a valid integer"),
        ("FORCE", "perhaps", "write 1 or 0. Compute everything again"),
        ("TARGET", "ender", "target_ender_20"),
        ("TARGETS", "cyrus", "such as `target_cyrusd_60`"),
        ("PORT", "80", "input should be greater than or equal to 1024. port of Airflow's web page"),
        ("CALENDAR", "gregorian", "input should be 'always-open' or 'strict'"),
        ("NO_INSTALL", "maybe", "write 1 or 0"),
    ],
)
def test_options_invalid_value_names_the_valid_ones(name: str, text: str, message: str) -> None:
    report = error_for(**{name: text})
    assert f"{name}={text}" in report
    assert message in report


def test_options_several_mistakes_are_reported_at_once() -> None:
    report = error_for(MODELS="svn", SEED="x", COLOUR="red")
    assert all(part in report for part in ("svn", "SEED=x", "COLOUR"))


def test_options_contradicting_each_other_are_rejected(tmp_path: Path) -> None:
    assert "needs an archive" in error_for(SOURCE="archive")
    assert "there is no file" in error_for(ARCHIVE=str(tmp_path / "missing.zip"))


def test_options_archive_becomes_absolute_and_sets_the_source(tmp_path: Path) -> None:
    (tmp_path / "my data.zip").touch()
    options = parse_run({"ARCHIVE": "my data.zip"}, tmp_path)
    assert options.conf == {"archive": str(tmp_path / "my data.zip"), "source": "archive"}


def test_options_depend_on_the_command() -> None:
    clean, test, faults = (
        parse_options(command, given)
        for command, given in (
            ("clean", {"ALL": "1"}),
            ("test", {"ARGS": "-k options"}),
            ("test-faults", {"SOAK": "200"}),
        )
    )
    assert isinstance(clean, CleanOptions)
    assert clean.everything
    assert isinstance(test, ProgramOptions)
    assert test.arguments == "-k options"
    assert isinstance(faults, FaultOptions)
    assert faults.soak == 200
    with pytest.raises(UsageError, match="SOAK=many: input should be a valid integer"):
        parse_options("test-faults", {"SOAK": "many"})
    with pytest.raises(UsageError, match="make up has no option MODELS"):
        parse_options("up", {"MODELS": "svm"})


def test_server_options_are_settings() -> None:
    options = parse_options(
        "server", {"PORT": "9", "TLS_BIND": "", "NUMERAI_X": " a"}, server_settings=["PORT", "TLS_BIND"]
    )
    assert isinstance(options, ServerOptions)
    assert options.settings == {"PORT": "9", "TLS_BIND": "", "NUMERAI_X": " a"}
    with pytest.raises(UsageError, match="make server has no option PROT"):
        parse_options("server", {"PROT": "9"}, server_settings=["PORT"])


def test_options_no_install_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_options("run", {}, MODELS).may_install
    monkeypatch.setenv("NO_INSTALL", "1")
    assert not parse_options("run", {}, MODELS).may_install


def test_parse_assignments_of_another_form_is_rejected() -> None:
    assert parse_assignments(["A=b=c"]) == {"A": "b=c"}
    with pytest.raises(UsageError, match="NAME=value"):
        parse_assignments(["svm"])


def through_make(folder: Path, overrides: dict[str, str]) -> dict[str, str]:
    """Have the real make write MAKEFLAGS and read them back."""
    (folder / "Makefile").write_text("show:\n\t@env --null | grep --null-data '^MAKEFLAGS='\n")
    arguments = [f"{name}={value}" for name, value in overrides.items()]
    answer = subprocess.run(
        ["make", "--no-print-directory", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return parse_makeflags(answer.stdout.rstrip("\0\n").removeprefix("MAKEFLAGS="))


def test_parse_makeflags_of_real_make_restores_the_values(tmp_path: Path) -> None:
    overrides = {
        "ARCHIVE": '/a b/it\'s "q"; rm -rf x & $HOME \\ back,{round}.zip',
        "MODELS": "svm,xgboost",
        "TARGET": "",
        "URL": "https://example.org/?a=b -- c=d",
    }
    assert through_make(tmp_path, overrides) == overrides
    assert through_make(tmp_path, {}) == {}


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(alphabet="ab =\\$'\",;{}", max_size=12)))
def test_parse_makeflags_unescapes_any_text(overrides: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(" ", "\\ ").replace("$", "$$")

    flags = "s --no-print-directory -- " + " ".join(f"{name}={escaped(value)}" for name, value in overrides.items())
    assert parse_makeflags(flags) == overrides


def test_make_help_lists_every_option_and_command() -> None:
    output = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    parameters = {name.upper() for name in form_fields(MODELS)}
    descriptions: dict[str, list[str]] = {}
    for model in COMMAND_OPTIONS.values():
        for field in model.model_fields.values():
            known = descriptions.setdefault(str(field.alias), [])
            if field.description and field.description not in known:
                known.append(field.description)
    assert parameters < set(descriptions)
    lines = output.splitlines()
    for name, texts in descriptions.items():
        if name in parameters:
            assert any(line.startswith(f"  {name} ") for line in lines), name
        else:
            # an option of several commands has a line in each group, or one line
            assert f"  {name:<16} {'; '.join(texts)}" in lines or all(f"  {name:<16} {text}" in lines for text in texts)
    assert all(f"make {command} " in output for command in {*COMMAND_OPTIONS, "help"})
