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
from numerai_pipeline.model_images import image_reference

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
    """An engine that remembers which images it built: a file each."""
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
                [[ -e {programs.folder}/happens ]] && source {programs.folder}/happens
                touch "$built/$tag" ;;
        esac
        """,
    )
    return programs


def happens(engine: Programs, script: str) -> None:
    """Let something happen in each build; $tag is the image's name."""
    (engine.folder / "happens").write_text(script)


def build(images_dir: Path, tmp_path: Path) -> str:
    images = ModelImages(Docker(Commands()), images_dir, IMAGES, tmp_path / "logs")
    screen = Screen(Console(record=True, width=200, force_terminal=False))
    with screen.step("Model images") as step:
        images.build(step)
    return screen.console.export_text()


def test_all_are_built_on_the_base_they_need(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    said = build(images_dir, tmp_path)
    calls = engine.calls("docker build ")
    # the bases come first; those that do not stand on each other come in any order
    base, old_base = sorted(calls[:2], reverse=True, key=lambda call: "3.12" in call)
    classic, auto = sorted(calls[2:], reverse=True, key=lambda call: "classic" in call)
    assert "--build-arg PYTHON_IMAGE=python:3.12-slim-bookworm" in base
    assert "--build-arg PYTHON_IMAGE=python:3.9-slim-bookworm" in old_base
    assert f"--build-arg BASE={image_reference(images_dir, 'base')}" in classic
    assert "--label numerai.image=classic" in classic
    assert f"--file {images_dir}/classic/Dockerfile {images_dir}" in classic
    assert f"--build-arg BASE={image_reference(images_dir, 'base', '3.9')}" in auto
    assert all(f"{name} built in" in said for name in ("base-python3.12", "base-python3.9", *IMAGES))


def test_what_is_unchanged_is_left_alone(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    build(images_dir, tmp_path)
    before = len(engine.calls("docker build "))
    assert "base-python3.12, base-python3.9, classic, auto_sklearn unchanged" in build(images_dir, tmp_path)
    assert len(engine.calls("docker build ")) == before


def test_what_changed_is_built_again(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    build(images_dir, tmp_path)
    (images_dir / "classic" / "svm.py").write_text("C = 2\n")
    said = build(images_dir, tmp_path)
    assert "classic built in" in said
    assert "base-python3.12, base-python3.9, auto_sklearn unchanged" in said


def test_a_build_that_fails_shows_its_end(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    happens(engine, "[[ $tag == numerai-classic:* ]] && exit 1")
    with pytest.raises(LauncherError, match="the image classic could not be built") as raised:
        build(images_dir, tmp_path)
    assert "Step 1/1" in raised.value.details[0]
    assert str(tmp_path / "logs" / "build-classic.log") in raised.value.details[1]


def test_images_are_built_side_by_side(
    images_dir: Path, tmp_path: Path, engine: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.images.cores", lambda: 2)
    wait_for_the_other = """
        touch {built}/begun-${tag%%:*}
        for name in numerai-classic numerai-auto-sklearn; do
            [[ $tag == numerai-base:* ]] || until [[ -e {built}/begun-$name ]]; do sleep 0.05; done
        done
    """
    happens(engine, wait_for_the_other.replace("{built}", str(engine.folder / "built")))
    said = build(images_dir, tmp_path)
    names = [image_reference(images_dir, *of) for of in IMAGES.items()]
    assert f"building {names[0]}, {names[1]} (2 of 4 done)" in said


def test_what_is_under_way_beside_a_failure_is_finished_and_kept(
    images_dir: Path, tmp_path: Path, engine: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.images.cores", lambda: 2)
    failure = """
        [[ $tag == numerai-classic:* ]] && touch {built}/failing && exit 1
        [[ $tag == numerai-base:* ]] || until [[ -e {built}/failing ]]; do sleep 0.05; done
    """
    happens(engine, failure.replace("{built}", str(engine.folder / "built")))
    with pytest.raises(LauncherError, match="the image classic could not be built"):
        build(images_dir, tmp_path)
    assert (engine.folder / "built" / image_reference(images_dir, "auto_sklearn", "3.9")).exists()


def test_a_stop_ends_the_builds_under_way(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    # a build that never ends, and a stop as a signal brings it to the main thread
    happens(engine, f"echo $$ >> {engine.folder}/under-way; while true; do sleep 1; done")
    signals = StopSignals()
    before = {number: signal.getsignal(number) for number in STOPPING}
    signals.install()

    def stop() -> None:
        wait_until((engine.folder / "under-way").exists, 30)
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
    assert not any(psutil.pid_exists(int(pid)) for pid in (engine.folder / "under-way").read_text().split())


def test_a_missing_dockerfile_is_named(images_dir: Path, tmp_path: Path, engine: Programs) -> None:
    (images_dir / "classic" / "Dockerfile").unlink()
    with pytest.raises(LauncherError, match="classic/Dockerfile"):
        build(images_dir, tmp_path)


def test_the_python_versions_that_are_needed() -> None:
    assert python_versions(IMAGES) == {"3.12": ["classic"], "3.9": ["auto_sklearn"]}
