from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from launcher.console import Screen
from launcher.docker_cli import Docker
from launcher.errors import LauncherError, StoppedError
from launcher.images import ModelImages, python_versions
from launcher.processes import Commands, wait_until
from launcher.signals import STOPPING, StopSignals
from numerai_pipeline.models.images import image_reference

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

IMAGES = {"classic": "3.12", "auto_sklearn": "3.9"}


@pytest.fixture
def images_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model_images"
    for name in ("base", "contract", *IMAGES):
        (folder / name).mkdir(parents=True)
        (folder / name / "Dockerfile").write_text(f"FROM scratch\nLABEL name={name}\n")
    return folder


@pytest.fixture
def engine(programs: Programs) -> Programs:
    """A fake engine that makes a file for each image it built."""
    (programs.folder / "built").mkdir()
    programs.add(
        "docker",
        f"""
        built={programs.folder}/built
        case "$1 $2" in
            "buildx inspect") exit 1 ;;
            "image inspect") [[ -e $built/$3 ]] ;;
            "build --force-rm")
                while (($#)); do
                    [[ $1 == --tag ]] && tag=$2
                    shift
                done
                echo "Step 1/1 : FROM scratch"
                [[ -e {programs.folder}/script ]] && source {programs.folder}/script
                touch "$built/$tag" ;;
        esac
        """,
    )
    return programs


def run_in_builds(engine: Programs, script: str) -> None:
    """Run a script in each build; $tag is the image's name."""
    (engine.folder / "script").write_text(script)


def build(images_dir: Path, tmp_path: Path) -> str:
    images = ModelImages(Docker(Commands()), images_dir, IMAGES, tmp_path / "logs")
    screen = Screen(Console(record=True, width=200, force_terminal=False))
    with screen.step("Model images") as step:
        images.build(step)
    return screen.console.export_text()


def test_build_uses_the_base_of_each_python_version(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    report = build(images_dir, tmp_path)
    calls = engine.calls("docker build ")
    # the bases come first; independent images come in any order
    base, old_base = sorted(calls[:2], reverse=True, key=lambda call: "3.12" in call)
    classic, auto = sorted(calls[2:], reverse=True, key=lambda call: "classic" in call)
    assert "--build-arg PYTHON_IMAGE=python:3.12-slim-bookworm" in base
    assert "--build-arg PYTHON_IMAGE=python:3.9-slim-bookworm" in old_base
    assert f"--build-arg BASE={image_reference(images_dir, 'base')}" in classic
    assert "--label numerai.image=classic" in classic
    assert f"--file {images_dir}/classic/Dockerfile {images_dir}" in classic
    assert f"--build-arg BASE={image_reference(images_dir, 'base', '3.9')}" in auto
    assert all(f"{name} built in" in report for name in ("base-python3.12", "base-python3.9", *IMAGES))


def test_build_skips_unchanged_images(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    build(images_dir, tmp_path)
    before = len(engine.calls("docker build "))
    assert "base-python3.12, base-python3.9, classic, auto_sklearn unchanged" in build(images_dir, tmp_path)
    assert len(engine.calls("docker build ")) == before


def test_build_repeats_changed_images(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    build(images_dir, tmp_path)
    (images_dir / "classic" / "svm.py").write_text("C = 2\n")
    report = build(images_dir, tmp_path)
    assert "classic built in" in report
    assert "base-python3.12, base-python3.9, auto_sklearn unchanged" in report


def test_build_failure_reports_the_end_of_its_log(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    run_in_builds(engine, "[[ $tag == numerai-classic:* ]] && exit 1")
    with pytest.raises(LauncherError, match="the image classic could not be built") as raised:
        build(images_dir, tmp_path)
    assert "Step 1/1" in raised.value.details[0]
    assert str(tmp_path / "logs" / "build-classic.log") in raised.value.details[1]


def test_build_runs_independent_images_in_parallel(
    images_dir: Path, tmp_path: Path, engine: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.images.machine_cores", lambda: 2)
    wait_for_the_other = """
        touch {built}/begun-${tag%%:*}
        for name in numerai-classic numerai-auto-sklearn; do
            [[ $tag == numerai-base:* ]] || until [[ -e {built}/begun-$name ]]; do sleep 0.05; done
        done
    """
    run_in_builds(engine, wait_for_the_other.replace("{built}", str(engine.folder / "built")))
    report = build(images_dir, tmp_path)
    names = [image_reference(images_dir, *of) for of in IMAGES.items()]
    assert f"building {names[0]}, {names[1]} (2 of 4 done)" in report


def test_build_in_progress_beside_a_failure_is_finished(
    images_dir: Path, tmp_path: Path, engine: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.images.machine_cores", lambda: 2)
    failure = """
        [[ $tag == numerai-classic:* ]] && touch {built}/failing && exit 1
        [[ $tag == numerai-base:* ]] || until [[ -e {built}/failing ]]; do sleep 0.05; done
    """
    run_in_builds(engine, failure.replace("{built}", str(engine.folder / "built")))
    with pytest.raises(LauncherError, match="the image classic could not be built"):
        build(images_dir, tmp_path)
    assert (engine.folder / "built" / image_reference(images_dir, "auto_sklearn", "3.9")).exists()


def test_build_is_ended_by_a_stop_signal(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    # a build that never ends, and a signal that raises in the main thread
    run_in_builds(engine, f"echo $$ >> {engine.folder}/in-progress; while true; do sleep 1; done")
    signals = StopSignals()
    before = {number: signal.getsignal(number) for number in STOPPING}
    signals.install()

    def stop() -> None:
        wait_until((engine.folder / "in-progress").exists, 30)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(StoppedError):
            build(images_dir, tmp_path)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    thread.join()
    assert not any(psutil.pid_exists(int(pid)) for pid in (engine.folder / "in-progress").read_text().split())


def test_build_without_dockerfile_names_it(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    (images_dir / "classic" / "Dockerfile").unlink()
    with pytest.raises(LauncherError, match="classic/Dockerfile"):
        build(images_dir, tmp_path)


def test_python_versions_groups_images_by_version() -> None:
    assert python_versions(IMAGES) == {"3.12": ["classic"], "3.9": ["auto_sklearn"]}
