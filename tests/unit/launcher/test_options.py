from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import EXIT_USAGE, UsageError
from launcher.options import COMMAND_OPTIONS, parse_assignments, parse_makeflags, parse_options
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


def test_run_uses_the_simulator_by_default() -> None:
    assert parse_options("run", {}, MODELS).conf == {"source": "practice", "automl_minutes": 1}


def test_options_are_converted_to_the_types_of_the_parameters() -> None:
    options = parse_options(
        "run",
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
        },
        MODELS,
    )
    assert options.conf == {
        "models": ["svm", "xgboost"],
        "automl_minutes": 2,
        "force": True,
        "submit": True,
        "replace": True,
        "target": None,
        "targets": ["target_ender_60", "target_cyrusd_60"],
        "source": "numerai",
    }
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
        ("SOURCE", "practise", "choose from numerai, practice, archive"),
        ("AUTOML_MINUTES", "0", "from 1 to 4320"),
        ("AUTOML_MINUTES", "2.5", "not a whole number"),
        ("FORCE", "perhaps", "write 1 or 0"),
        ("TARGET", "ender", "target_ender_20"),
        ("TARGETS", "target_ender_20,cyrus", "such as `target_cyrusd_60`"),
        ("PORT", "80", "from 1024 to 65535"),
        ("CALENDAR", "gregorian", "choose from always-open, strict"),
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
    options = parse_options("run", {"ARCHIVE": "my data.zip"}, MODELS, directory=tmp_path)
    assert options.conf == {"archive": str(tmp_path / "my data.zip"), "source": "archive"}


def test_options_depend_on_the_command() -> None:
    assert parse_options("clean", {"ALL": "1"}).everything
    assert parse_options("test", {"ARGS": "-k options"}).arguments == "-k options"
    assert parse_options("test-faults", {"SOAK": "200"}).soak == 200
    with pytest.raises(UsageError, match="SOAK=many: not a whole number"):
        parse_options("test-faults", {"SOAK": "many"})
    with pytest.raises(UsageError, match="make up has no option MODELS"):
        parse_options("up", {"MODELS": "svm"})


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
    options = {name.upper() for name in form_fields(MODELS)}
    options.update(*COMMAND_OPTIONS.values())
    missing = [name for name in options if f"\n  {name} " not in output]
    assert not missing
    assert all(f"make {command} " in output for command in {*COMMAND_OPTIONS, "help"})
