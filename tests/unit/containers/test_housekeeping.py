"""Removals of housekeeping, on real directories whose files have real ages."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.containers.housekeeping import Cleanup, remove_downloads, remove_results, remove_runs
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.locks import file_lock, lock_path
from numerai_pipeline.storage.manifests import manifest_path, verified_manifest, write_manifest
from numerai_pipeline.storage.results import ResultStore
from numerai_pipeline.storage.task_records import Fallback, TaskRecord, remove_record
from numerai_pipeline.storage.used_objects import RunRef
from tests.generated_results import add_task

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
RUN = RunRef("numerai_tournament", "scheduled__2026-08-15T13:00:00+00:00")


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path / "data")


def age(path: Path, days: float) -> None:
    """Set the age in days of a file, or of a folder with its content."""
    moment = (NOW - timedelta(days=days)).timestamp()
    for each in [path, *path.rglob("*")]:
        os.utime(each, (moment, moment), follow_symlinks=False)


def make_run(
    data: DataLayout,
    round_name: str,
    days: float,
    *,
    source: str = "numerai",
    run: RunRef | None = None,
    **content: Any,
) -> Path:
    layout = data.run(round_name, "0123456789ab")
    layout.directory.mkdir(parents=True)
    layout.live.write_bytes(b"x" * 1000)
    of = {"dag": run.dag, "run_id": run.run} if run else {}
    layout.run_metadata.write_text(json.dumps({"source": source, **of, **content}))
    age(layout.directory, days)
    return layout.directory


def make_download(data: DataLayout, name: str, days: float) -> Path:
    path = data.downloads_root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"y" * 1000)
    write_manifest(path)
    lock_path(path).touch()
    age(path, days)
    age(manifest_path(path), days)
    return path


def clean_runs(
    data: DataLayout,
    *,
    keep_rounds: int = 1,
    dry_run: bool = False,
    is_active: Callable[[RunRef], bool] = lambda _: False,
) -> Cleanup:
    cleanup = Cleanup(NOW, dry_run)
    remove_runs(cleanup, data, keep_rounds=keep_rounds, keep_days=60, is_active=is_active)
    return cleanup


def clean_results(
    data: DataLayout, *, dry_run: bool = False, is_active: Callable[[RunRef], bool] = lambda _: False
) -> Cleanup:
    cleanup = Cleanup(NOW, dry_run)
    remove_results(cleanup, data, keep_rounds=1, keep_days=60, is_active=is_active)
    return cleanup


def sweep_downloads(data: DataLayout, *, dry_run: bool = False) -> Cleanup:
    cleanup = Cleanup(NOW, dry_run)
    remove_downloads(cleanup, data, keep_rounds=1, keep_days=60)
    return cleanup


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_remove_runs_removes_records_of_submissions_of_old_rounds(data: DataLayout) -> None:
    make_run(data, "1302", days=1)
    kept = {("numerai", 1302): 400, ("numerai", 1301): 59}
    removed = {("numerai", 1300): 61, ("practice", 1302): 61}
    for (source, number), days in {**kept, **removed}.items():
        record = data.submission_slot(source, number, "an-id")
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        lock_path(record).touch()
        age(record.parent, days)
    assert clean_runs(data).removed == ["submissions/numerai/1300", "submissions/practice/1302"]
    assert all(data.submission_slot(source, number, "an-id").exists() for source, number in kept)
    assert not any(data.submission_slot(source, number, "an-id").parent.exists() for source, number in removed)


def test_remove_runs_old_ones_are_removed_with_empty_round_folders(data: DataLayout) -> None:
    old = make_run(data, "1300", days=61)
    used = make_run(data, "1301", days=61)
    RunLayout(used).report("svm").parent.mkdir()
    RunLayout(used).report("svm").write_text("{}")
    age(RunLayout(used).report("svm"), days=59)
    last = make_run(data, "1302", days=400)
    cleanup = clean_runs(data)
    assert cleanup.removed == ["rounds/1300/0123456789ab"]
    assert cleanup.freed == 1000 + len('{"source": "numerai"}')
    assert not old.parent.exists()
    assert used.exists()
    assert last.exists()


def test_remove_runs_newest_rounds_of_each_source_stay(data: DataLayout) -> None:
    make_run(data, "999", days=100)
    make_run(data, "1000", days=100)
    make_run(data, "1335", days=100, source="practice")
    make_run(data, "1334", days=100, source="practice")
    make_run(data, "archive", days=100, source="archive")
    assert clean_runs(data).removed == ["rounds/1334/0123456789ab", "rounds/999/0123456789ab"]


def test_remove_runs_every_run_of_a_recent_round_stays(data: DataLayout) -> None:
    directory = make_run(data, "1000", days=100)
    shutil.copytree(directory, directory.with_name("ba9876543210"))
    assert clean_runs(data).removed == []


def test_remove_runs_old_run_without_metadata_is_removed(data: DataLayout) -> None:
    directory = make_run(data, "1000", days=100)
    RunLayout(directory).run_metadata.unlink()
    age(directory, days=100)
    assert clean_runs(data).removed == ["rounds/1000/0123456789ab"]


def test_remove_runs_active_run_stays(data: DataLayout) -> None:
    make_run(data, "1000", days=100, run=RUN)
    make_run(data, "1001", days=100, run=RunRef(RUN.dag, "manual__1"))
    make_run(data, "1002", days=100)
    assert clean_runs(data, is_active=lambda run: run == RUN).removed == ["rounds/1001/0123456789ab"]


def test_remove_runs_without_answer_of_airflow_removes_no_run(data: DataLayout) -> None:
    make_run(data, "1000", days=100)
    make_run(data, "1001", days=100, run=RUN)
    make_run(data, "1002", days=100)
    before = everything_in(data.rounds)

    def no_answer(_run: RunRef) -> bool:
        msg = "no answer"
        raise ConnectionError(msg)

    with pytest.raises(ConnectionError):
        clean_runs(data, is_active=no_answer)
    assert everything_in(data.rounds) == before


def test_remove_runs_dry_run_logs_and_changes_nothing(data: DataLayout, caplog: pytest.LogCaptureFixture) -> None:
    make_run(data, "1000", days=100)
    make_run(data, "1001", days=1)
    make_download(data, "numerai/v4.3/train.parquet", days=100)
    before = everything_in(data.root)
    with caplog.at_level(logging.INFO):
        clean_runs(data, dry_run=True).finish()
        dry = sweep_downloads(data, dry_run=True)
    assert everything_in(data.root) == before
    assert "would remove rounds/1000/0123456789ab: 0.0 MB, 100.0 days old" in caplog.messages
    assert "would free 0.0 MB: 1 to be removed" in caplog.messages
    assert dry.removed == sweep_downloads(data).removed == ["downloads/numerai/v4.3/train.parquet"]


def be_killed_in_the_middle(data: DataLayout) -> None:
    """Remove runs in a process that ends, as by SIGKILL, when the first file of a directory is to be unlinked."""
    os.unlink = lambda *_args, **_kwargs: os._exit(9)
    clean_runs(data)


def test_remove_runs_killed_leaves_no_partial_run(data: DataLayout) -> None:
    make_run(data, "1000", days=100)
    make_run(data, "1001", days=100)
    process = multiprocessing.get_context("fork").Process(target=be_killed_in_the_middle, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not (data.rounds / "1000").exists()
    [left] = data.rounds.glob(".removed-1000-*")
    assert clean_runs(data).removed == [f"{left.name} (leftover)"]
    run = "1001/0123456789ab"
    assert everything_in(data.rounds) == ["1001", run, f"{run}/live.parquet", f"{run}/run.json"]


def test_remove_runs_links_out_of_the_volume_are_not_followed(data: DataLayout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    directory = make_run(data, "1000", days=100)
    (directory / "link").symlink_to(tmp_path / "elsewhere")
    age(directory, days=100)
    age(tmp_path / "elsewhere", days=100)
    os.utime(directory / "link", (0, 0), follow_symlinks=False)
    make_run(data, "1001", days=100)
    assert clean_runs(data).removed == ["rounds/1000/0123456789ab"]
    assert (tmp_path / "elsewhere" / "precious").exists()


def make_dataset(data: DataLayout, key: str, days: float) -> Path:
    layout = data.dataset(key)
    layout.directory.mkdir(parents=True)
    layout.training.write_bytes(b"x" * 1000)
    lock_path(layout.directory).touch()
    age(lock_path(layout.directory), days)
    age(layout.directory, days)
    return layout.directory


def make_task(layout: RunLayout, task: str, days: float, **options: Any) -> TaskRecord:
    """Give a run a fit and a prediction of a task, of this age."""
    record = add_task(layout, task, fit=write_fit, prediction=write_prediction, **options)
    for result in results_of(layout, record):
        age(result, days)
    for path in (layout.task_record(task), layout.tasks_directory, layout.directory):
        age(path, days)
    return record


def write_fit(directory: Path) -> None:
    (directory / "report.json").write_text("{}")


def write_prediction(directory: Path) -> None:
    (directory / "prediction_report.json").write_text("{}")


def results_of(layout: RunLayout, record: TaskRecord) -> list[Path]:
    return [layout.data.result(record.task, str(key)) for key in (record.fit, record.prediction)]


def test_remove_results_follows_the_runs_that_are_removed(data: DataLayout) -> None:
    for name in ("a", "b", "c"):
        make_dataset(data, name * 12, days=90)
    old = RunLayout(make_run(data, "1000", days=90, dataset="a" * 12))
    kept = RunLayout(make_run(data, "1001", days=90, dataset="b" * 12))
    gone = results_of(old, make_task(old, "svm", 90, dataset="a" * 12, variant="old"))
    shared = make_task(kept, "xgboost", 90, dataset="b" * 12)
    make_task(old, "xgboost", 90, dataset="b" * 12)
    names = sorted(str(path.relative_to(data.root)) for path in gone)
    expected = [*names, f"datasets/{'a' * 12}", f"datasets/{'c' * 12}"]
    # a dry run lists what goes with the runs that it lists
    assert clean_runs(data, dry_run=True).removed == ["rounds/1000/0123456789ab"]
    before = everything_in(data.root)
    assert clean_results(data, dry_run=True).removed == expected
    assert everything_in(data.root) == before
    assert clean_runs(data).removed == ["rounds/1000/0123456789ab"]
    assert clean_results(data).removed[: len(expected)] == expected
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in results_of(kept, shared))
    assert data.dataset("b" * 12).training.exists()
    assert list(data.results_root.glob(".*")) == list(data.datasets_root.glob(".removed*")) == []


def test_remove_results_of_an_active_run_stay(data: DataLayout) -> None:
    run = RunLayout(make_run(data, "1000", days=90, run=RUN))
    make_run(data, "1001", days=90)
    record = make_task(run, "svm", 90)
    assert clean_results(data, is_active=lambda found: found == RUN).removed == []
    assert clean_results(data).removed == sorted(str(path.relative_to(data.root)) for path in results_of(run, record))


def test_remove_results_young_ones_stay(data: DataLayout) -> None:
    layout = RunLayout(make_run(data, "1000", days=90))
    record = make_task(layout, "svm", 59)
    remove_record(layout, "svm")
    make_dataset(data, "c" * 12, days=59)
    assert clean_results(data).removed == []
    assert all(path.exists() for path in results_of(layout, record))


def test_remove_results_fallback_and_fits_of_older_datasets_stay(data: DataLayout) -> None:
    for name in ("a", "b", "c", "d"):
        make_dataset(data, name * 12, days=90)
    layout = RunLayout(make_run(data, "1000", days=90, dataset="a" * 12, older_datasets=["b" * 12]))
    earlier = make_task(layout, "svm", 90, dataset="c" * 12, variant="earlier")
    newest = make_task(layout, "svm", 90, dataset="b" * 12, variant="newest")
    fallback = Fallback(earlier.dataset, earlier.fit, earlier.prediction)
    make_task(layout, "svm", 90, dataset="a" * 12, fallback=fallback)
    fit, prediction = (str(path.relative_to(data.root)) for path in results_of(layout, newest))
    # a run that starts now may use the fit of an older dataset, not the old predictions
    assert clean_results(data).removed[:2] == [prediction, f"datasets/{'d' * 12}"]
    assert (data.root / fit).exists()


def test_remove_results_published_predictions_in_use_stay(data: DataLayout) -> None:
    make_run(data, "1000", days=90, references="used")
    for key in ("used", "unused"):
        data.result("references", key).mkdir(parents=True)
        age(data.result("references", key), days=90)
    assert clean_results(data).removed == ["results/references/unused"]


def test_remove_results_with_damaged_record_keeps_the_linked_ones(data: DataLayout) -> None:
    layout = RunLayout(make_run(data, "1000", days=90))
    record = make_task(layout, "svm", 90)
    layout.task_record("svm").write_text("{")
    kept, gone = results_of(layout, record)  # its prediction has no linked file
    assert clean_results(data).removed == [str(gone.relative_to(data.root))]
    assert kept.exists()


def test_remove_results_claimed_ones_stay(data: DataLayout) -> None:
    layout = RunLayout(make_run(data, "1000", days=90))
    record = make_task(layout, "svm", 90)
    remove_record(layout, "svm")
    fit, prediction = results_of(layout, record)
    with ResultStore(data).claim("svm", record.fit):
        for dry_run in (True, False):
            assert clean_results(data, dry_run=dry_run).removed == [str(prediction.relative_to(data.root))]
    assert fit.exists()


def test_remove_results_old_workspaces_and_lock_files_are_removed(data: DataLayout) -> None:
    for key, days in {"old": 61, "young": 59, "working": 61}.items():
        data.work("svm", key).mkdir(parents=True)
        (data.work("svm", key) / "partial").write_text("x")
        age(data.work("svm", key), days)
    stale, fresh = (data.work("svm", name).with_suffix(".lock") for name in ("stale", "fresh"))
    marker = data.work("svm", "lost").with_name("lost.continues.json")
    for path, days in {stale: 61, fresh: 59, marker: 61}.items():
        path.touch()
        age(path, days)
    with ResultStore(data).claim("svm", "working"):
        assert clean_results(data).removed == ["work/svm/old", "work/svm/lost.continues.json", "work/svm/stale.lock"]
    assert sorted(path.name for path in (data.work_root / "svm").iterdir() if path.is_dir()) == ["working", "young"]
    assert fresh.exists()


def test_remove_results_old_unfinished_datasets_are_removed(data: DataLayout) -> None:
    for name, days in {".a.1.part": 61, ".b.1.part": 59}.items():
        (data.datasets_root / name).mkdir(parents=True)
        age(data.datasets_root / name, days)
    assert clean_results(data).removed == ["datasets/.a.1.part"]


def killed_removing_results(data: DataLayout) -> None:
    """Remove results in a process that ends, as by SIGKILL, when the first file is to be unlinked."""
    os.unlink = lambda *_args, **_kwargs: os._exit(9)
    clean_results(data)


def test_remove_results_killed_leaves_no_partial_result(data: DataLayout) -> None:
    layout = RunLayout(make_run(data, "1000", days=90))
    record = make_task(layout, "svm", 90)
    remove_record(layout, "svm")
    process = multiprocessing.get_context("fork").Process(target=killed_removing_results, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == 9
    fit, prediction = results_of(layout, record)
    assert [fit.exists(), prediction.exists()].count(False) == 1
    [leftover] = data.results_root.glob(".removed-svm-*")
    assert clean_results(data).removed[0] == f"{leftover.name} (leftover)"
    assert list(data.results_root.glob("*/*")) == list(data.results_root.glob(".*")) == []


def test_remove_downloads_unrequested_files_and_folders_are_removed(data: DataLayout) -> None:
    make_run(data, "1335", days=1)
    for name, days in {
        "numerai/v4.3/train.parquet": 61,
        "numerai/v5.3/train.parquet": 59,
        "numerai/v5.3/round-1200/live.parquet": 61,
        "numerai/v5.3/round-1335/live.parquet": 400,
        "practice/v5.3/round-1335/live.parquet": 61,
        "archive/0123456789ab/numerai_dataset.zip": 61,
    }.items():
        make_download(data, name, days)
    cleanup = sweep_downloads(data)
    assert cleanup.freed == 4 * 1000
    kept = [str(path.relative_to(data.downloads_root)) for path in data.downloads_root.rglob("*") if path.is_dir()]
    assert sorted(kept) == ["numerai", "numerai/v5.3", "numerai/v5.3/round-1335"]
    assert verified_manifest(data.downloads_root / "numerai/v5.3/train.parquet")
    assert verified_manifest(data.downloads_root / "numerai/v5.3/round-1335/live.parquet")


def test_remove_downloads_recently_requested_file_stays(data: DataLayout) -> None:
    path = make_download(data, "numerai/v5.3/train.parquet", days=61)
    age(manifest_path(path), days=3)
    assert sweep_downloads(data).removed == []


def test_remove_downloads_locked_file_stays(data: DataLayout) -> None:
    path = make_download(data, "numerai/v5.3/train.parquet", days=61)
    with file_lock(lock_path(path)):
        assert sweep_downloads(data).removed == []
    assert sweep_downloads(data).removed == ["downloads/numerai/v5.3/train.parquet"]


def test_remove_downloads_file_without_manifest_is_removed(data: DataLayout) -> None:
    path = make_download(data, "numerai/v5.3/train.parquet", days=61)
    manifest_path(path).unlink()
    assert sweep_downloads(data).removed == ["downloads/numerai/v5.3/train.parquet"]
    assert everything_in(data.downloads_root) == []


def test_remove_downloads_old_unfinished_files_are_removed(data: DataLayout) -> None:
    folder = data.downloads("numerai/v5.3")
    folder.mkdir(parents=True)
    run = make_run(data, "1335", days=1)
    for name, days in {folder / ".a.1.part": 61, folder / ".b.2.part": 1, run / ".x.csv.3.part": 61}.items():
        name.write_bytes(b"z" * 10)
        age(name, days)
    assert sweep_downloads(data).removed == [
        "downloads/numerai/v5.3/.a.1.part",
        "rounds/1335/0123456789ab/.x.csv.3.part",
    ]


def test_cleanup_failing_removal_is_named_and_others_continue() -> None:
    cleanup = Cleanup(NOW)

    def refuse() -> None:
        msg = "not yours"
        raise PermissionError(msg)

    cleanup.remove("first", 5, NOW, refuse)
    cleanup.remove("second", 7, NOW, lambda: None)
    assert (cleanup.removed, cleanup.freed) == (["second"], 7)
    with pytest.raises(PipelineError, match="1 could not be removed: first: not yours"):
        cleanup.finish()


def test_cleanup_empty_volume_removes_no_file(data: DataLayout) -> None:
    assert clean_runs(data).finish()["removed"] == []
    assert clean_results(data).finish()["removed"] == []
    assert sweep_downloads(data).finish()["removed"] == []
