"""A workspace: its inputs, the state after a kill of its container, and its removal."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from numerai_pipeline.containers.mounts import workspace_mounts
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError

USER = f"{os.getuid()}:{os.getgid()}"


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    source = tmp_path / "inputs"
    (source / "tsne").mkdir(parents=True)
    for name in ("live.parquet", "tsne/map.parquet"):
        (source / name).write_text(name)
    return {name: source / name for name in ("live.parquet", "tsne/map.parquet")}


@pytest.fixture
def workspace(tmp_path: Path, inputs: dict[str, Path]) -> Workspace:
    return Workspace(tmp_path / "work" / "svm" / "0123", inputs)


def fit(workspace: Workspace, *, finished: bool = True) -> None:
    (workspace.model / "saved").mkdir(parents=True, exist_ok=True)
    (workspace.model / "saved" / "state").write_text("state")
    if finished:
        (workspace.model / "model.json").write_text("{}")


def files(workspace: Workspace) -> set[str]:
    found = workspace.directory.rglob("*")
    return {str(path.relative_to(workspace.directory)) for path in found if not path.is_dir()}


def test_prepare_inputs_have_mount_targets(workspace: Workspace) -> None:
    workspace.prepare(USER)
    assert files(workspace) == {"live.parquet", "tsne/map.parquet"}
    assert (workspace.directory / "live.parquet").read_bytes() == b""
    folders = {path.name for path in workspace.directory.iterdir() if path.is_dir()}
    assert folders == {"predictions", "reports", "live", "model", "tsne"}


def test_prepare_finished_fit_is_mounted_as_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "fit").mkdir()
    predicting = Workspace(workspace.directory, {**workspace.inputs, "model": tmp_path / "fit"})
    predicting.prepare(USER)
    assert list(predicting.model.iterdir()) == []
    mounts = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in workspace_mounts(predicting)}
    assert mounts == {
        "/data": (str(workspace.directory), False),
        "/data/live.parquet": (str(workspace.inputs["live.parquet"]), True),
        "/data/tsne/map.parquet": (str(workspace.inputs["tsne/map.parquet"]), True),
        "/data/model": (str(tmp_path / "fit"), True),
    }


def test_prepare_is_apart_from_a_container_that_still_writes(workspace: Workspace) -> None:
    workspace.prepare(USER)
    fit(workspace)
    mounted = [os.open(folder, os.O_RDONLY) for folder in (workspace.model, workspace.directory / "reports")]
    workspace.prepare(USER)
    for folder in mounted:
        # the folder is removed, or a file in it is
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        os.close(folder)
    assert files(workspace) == {"live.parquet", "tsne/map.parquet", "model/model.json", "model/saved/state"}


def test_prepare_parts_without_a_finished_fit_lose_unfinished_files(workspace: Workspace) -> None:
    fit(workspace, finished=False)
    (workspace.model / ".more.part").write_text("half")
    replace(workspace, keeps_parts=True).prepare(USER)
    assert files(workspace) == {"live.parquet", "tsne/map.parquet", "model/saved/state"}
    assert list(workspace.directory.parent.parent.glob(".removed-*")) == []
    workspace.prepare(USER)
    assert files(workspace) == {"live.parquet", "tsne/map.parquet"}


def test_prepare_after_a_kill_of_prepare_keeps_the_finished_fit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(workspace)
    real = Path.rename
    for name in ("0123", ".model.part"):  # after the first rename, and before the last

        def rename_and_die(path: Path, target: Path, name: str = name) -> Path:
            if path.name == ".model.part":
                raise KeyboardInterrupt
            renamed = real(path, target)
            if path.name == name:
                raise KeyboardInterrupt
            return renamed

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename_and_die)
            with pytest.raises(KeyboardInterrupt):
                workspace.prepare(USER)
    workspace.prepare(USER)
    assert files(workspace) == {"live.parquet", "tsne/map.parquet", "model/model.json", "model/saved/state"}
    assert list(workspace.directory.parent.parent.glob(".removed-*")) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to another user")
def test_prepare_folders_belong_to_the_user_of_the_container(workspace: Workspace) -> None:
    workspace.prepare("10001:10001")
    owners = {path.stat().st_uid for path in (workspace.directory, *workspace.directory.rglob("*")) if path.is_dir()}
    assert owners == {10001}


@pytest.mark.parametrize(
    ("finished", "keeps_parts", "kept"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_prepare_keeps_a_finished_fit_or_its_parts_only(
    workspace: Workspace, finished: bool, keeps_parts: bool, kept: bool
) -> None:
    again = Workspace(workspace.directory, workspace.inputs, keeps_parts=keeps_parts)
    again.prepare(USER)
    fit(again, finished=finished)
    (again.directory / "predictions" / "svm.csv").write_text("half")
    (again.directory / "stray").symlink_to("/etc")
    (again.directory / "reports").rmdir()
    (again.directory / "reports").symlink_to("/etc")
    again.prepare(USER)
    assert ("model/saved/state" in files(again)) == kept
    assert files(again) & {"predictions/svm.csv", "stray"} == set()
    assert again.has_fit == finished
    assert not (again.directory / "reports").is_symlink()
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("where", ["model.json", "model"])
def test_has_fit_is_false_for_links(workspace: Workspace, tmp_path: Path, where: str) -> None:
    other = Workspace(tmp_path / "another", {})
    fit(other)
    workspace.directory.mkdir(parents=True)
    if where == "model":
        workspace.model.symlink_to(other.model)
    else:
        fit(workspace, finished=False)
        (workspace.model / "model.json").symlink_to(other.model / "model.json")
    assert not workspace.has_fit
    workspace.reset()
    assert other.has_fit
    assert files(workspace) == set()


def test_remove_leaves_other_workspaces_and_inputs(workspace: Workspace) -> None:
    other = Workspace(workspace.directory.with_name("4567"), {})
    for each in (workspace, other):
        each.prepare(USER)
    workspace.remove()
    assert not workspace.directory.exists()
    assert other.directory.exists()
    assert workspace.inputs["live.parquet"].read_text() == "live.parquet"
    other.remove()
    assert not other.directory.parent.exists()
    other.remove()  # of an attempt that was killed right before its end


def test_remove_that_fails_is_a_warning(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.prepare(USER)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        workspace.remove()
    assert "could not be removed: parts of it belong to another user" in caplog.text


def test_check_plain_links_and_pipes_are_errors(workspace: Workspace, tmp_path: Path) -> None:
    workspace.prepare(USER)
    secret = tmp_path / "secret"
    secret.write_text("id,prediction\n")
    path = workspace.directory / "predictions" / "svm.csv"
    workspace.check_plain(path)  # a missing file is another error
    path.write_text("id,prediction\n")
    workspace.check_plain(path)
    path.unlink()
    message = r"predictions/svm\.csv: the container produced something other than a regular file"
    kinds: list[Callable[[], object]] = [partial(path.symlink_to, secret), partial(os.mkfifo, path), path.mkdir]
    for make in kinds:
        make()
        with pytest.raises(BadInputError, match=message):
            workspace.check_plain(path)
        path.rmdir() if path.is_dir() else path.unlink()
    # a folder that was replaced by a link
    path.parent.rmdir()
    (tmp_path / "svm.csv").write_text("id,prediction\n")
    path.parent.symlink_to(tmp_path)
    with pytest.raises(BadInputError, match=message):
        workspace.check_plain(path)
