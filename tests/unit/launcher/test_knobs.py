from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.checkout import ROOT
from launcher.errors import EXIT_USAGE, UsageError
from launcher.knobs import LAUNCHER_KNOBS, OTHER_KNOBS, overrides_from_make, overrides_from_words, parse_knobs
from numerai_pipeline.parameters import form_fields

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ("svm", "xgboost", "wide_and_deep")


def complaint(**overrides: str) -> str:
    with pytest.raises(UsageError) as raised:
        parse_knobs("run", overrides, MODELS)
    assert raised.value.exit_code == EXIT_USAGE
    return "\n".join([raised.value.message, *raised.value.details])


def test_a_run_practises_unless_told_otherwise() -> None:
    assert parse_knobs("run", {}, MODELS).conf == {"source": "practice", "automl_minutes": 1}


def test_knobs_become_values_of_the_parameters_types() -> None:
    knobs = parse_knobs(
        "run",
        {
            "MODELS": "svm, xgboost,",
            "AUTOML_MINUTES": "2",
            "FORCE": "yes",
            "TARGET": "",
            "SOURCE": "numerai",
            "PORT": "9000",
        },
        MODELS,
    )
    assert knobs.conf == {
        "models": ["svm", "xgboost"],
        "automl_minutes": 2,
        "force": True,
        "target": None,
        "source": "numerai",
    }
    assert knobs.port == 9000


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    said = complaint(MODEL="svm")
    assert "no knob MODEL (did you mean MODELS?)" in said
    assert all(name.upper() in said for name in form_fields(MODELS))


def test_a_wrong_model_is_answered_with_the_models() -> None:
    said = complaint(MODELS="svn")
    assert "'svn' is not a model (did you mean svm?); choose from svm, xgboost, wide_and_deep" in said


@pytest.mark.parametrize(
    ("knob", "text", "words"),
    [
        ("SOURCE", "practise", "choose from numerai, practice, archive"),
        ("AUTOML_MINUTES", "0", "from 1 to 4320"),
        ("AUTOML_MINUTES", "2.5", "not a whole number"),
        ("FORCE", "perhaps", "write 1 or 0"),
        ("TARGET", "ender", "target_ender_20"),
        ("PORT", "80", "from 1024 to 65535"),
        ("NO_INSTALL", "maybe", "write 1 or 0"),
    ],
)
def test_a_wrong_value_is_answered_with_what_would_be_right(knob: str, text: str, words: str) -> None:
    said = complaint(**{knob: text})
    assert f"{knob}={text}" in said
    assert words in said


def test_every_mistake_is_named_at_once() -> None:
    said = complaint(MODELS="svn", SEED="x", COLOUR="red")
    assert all(word in said for word in ("svn", "SEED=x", "COLOUR"))


def test_choices_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    assert "needs an archive" in complaint(SOURCE="archive")
    assert "there is no file" in complaint(ARCHIVE=str(tmp_path / "missing.zip"))


def test_an_archive_is_made_absolute_and_chooses_its_source(tmp_path: Path) -> None:
    (tmp_path / "my data.zip").touch()
    knobs = parse_knobs("run", {"ARCHIVE": "my data.zip"}, MODELS, directory=tmp_path)
    assert knobs.conf == {"archive": str(tmp_path / "my data.zip"), "source": "archive"}


def test_each_command_has_knobs_of_its_own() -> None:
    assert parse_knobs("clean", {"ALL": "1"}).everything
    assert parse_knobs("test", {"ARGS": "-k knobs"}).arguments == "-k knobs"
    assert parse_knobs("test-faults", {"SOAK": "200"}).soak == 200
    with pytest.raises(UsageError, match="SOAK=many: not a whole number"):
        parse_knobs("test-faults", {"SOAK": "many"})
    with pytest.raises(UsageError, match="make up has no knob MODELS"):
        parse_knobs("up", {"MODELS": "svm"})


def test_installing_can_be_forbidden_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_knobs("run", {}, MODELS).may_install
    monkeypatch.setenv("NO_INSTALL", "1")
    assert not parse_knobs("run", {}, MODELS).may_install


def test_an_argument_that_is_no_knob_is_refused() -> None:
    assert overrides_from_words(["A=b=c"]) == {"A": "b=c"}
    with pytest.raises(UsageError, match="NAME=value"):
        overrides_from_words(["svm"])


def through_make(folder: Path, overrides: dict[str, str]) -> dict[str, str]:
    """Have the real make write MAKEFLAGS and read them back."""
    (folder / "Makefile").write_text("show:\n\t@env --null | grep --null-data '^MAKEFLAGS='\n")
    words = [f"{name}={value}" for name, value in overrides.items()]
    answer = subprocess.run(
        ["make", "--no-print-directory", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return overrides_from_make(answer.stdout.rstrip("\0\n").removeprefix("MAKEFLAGS="))


def test_make_hands_over_whatever_a_knob_contains(tmp_path: Path) -> None:
    overrides = {
        "ARCHIVE": '/a b/it\'s "q"; rm -rf x & $HOME \\ back,{round}.zip',
        "MODELS": "svm,xgboost",
        "TARGET": "",
        "URL": "https://example.org/?a=b -- c=d",
    }
    assert through_make(tmp_path, overrides) == overrides
    assert through_make(tmp_path, {}) == {}


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(alphabet="ab =\\$'\",;{}", max_size=12)))
def test_makes_escaping_is_undone(overrides: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(" ", "\\ ").replace("$", "$$")

    flags = "s --no-print-directory -- " + " ".join(f"{name}={escaped(value)}" for name, value in overrides.items())
    assert overrides_from_make(flags) == overrides


def test_the_help_text_lists_every_knob_and_command() -> None:
    said = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    knobs = {name.upper() for name in form_fields(MODELS)}
    knobs.update(*LAUNCHER_KNOBS.values(), *OTHER_KNOBS.values())
    missing = [knob for knob in knobs if f"\n  {knob} " not in said]
    assert not missing
    assert all(f"make {command} " in said for command in {*LAUNCHER_KNOBS, *OTHER_KNOBS, "help"})
