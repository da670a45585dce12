"""The Auto-WEKA image: reproducible searches, stop requests, background predictions, and parsers."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from numerai_contract.exits import Exit, ModelFailureError
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes
from tests.images.conftest import THREE_TABLES, USER, FinishedRun, Runner, assert_succeeded, write_tables
from tests.images.models import FEW_RUNS, THREE_GIB, TWO_SEARCHES
from tests.images.search_stops import assert_stopped_in_search
from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import docker
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "auto_weka"
FOLDER = ROOT / "model_images" / "auto_weka"


@pytest.fixture(scope="module")
def load_module() -> Any:
    """Import modules of the operation without the image."""
    package = ModuleType("auto_weka_operation")
    package.__path__ = [str(FOLDER)]
    sys.modules[package.__name__] = package
    return lambda name: importlib.import_module(f"{package.__name__}.{name}")


def test_auto_weka_run_limit_tries_the_same_configurations(runner: Runner) -> None:
    write_tables(runner.directory)
    limits = FEW_RUNS | TWO_SEARCHES | {"RUN_LIMIT": "4"}
    first = assert_succeeded(runner.run("auto_weka", THREE_GIB, **limits))
    again = assert_succeeded(runner.run("auto_weka", THREE_GIB, **limits))

    def by_seed(finished: FinishedRun, seed: int) -> list[tuple[str, str]]:
        # both searches start with the same one, which is recorded once, for the search that was first
        first_one, *rest = finished.report["chosen"]["tried"]
        tried = [(one["learner"], one["options"]) for one in rest if one["seed"] == seed]
        return [one for one in tried if one != (first_one["learner"], first_one["options"])]

    # the order of two searches varies; the configurations of each do not
    for seed in (67, 68):
        assert by_seed(first, seed) == by_seed(again, seed)
    assert by_seed(first, 67)
    assert by_seed(first, 67) != by_seed(first, 68)
    assert first.predictions_bytes == again.predictions_bytes


def _stopped_after(runner: Runner, line: bytes) -> FinishedRun:
    """Stop a long search after a line of its log."""
    # without an embargo the folds have all rows, and so has the model that is ready
    environment = {"TIME_LIMIT": "300", "EMBARGO": "0", **TWO_SEARCHES, **THREE_TABLES}
    container = runner.start("auto_weka", THREE_GIB, **environment)
    next(printed for printed in container.logs(stream=True) if line in printed)
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    return runner.wait(container, "auto_weka")


def test_auto_weka_early_stop_request_exits_with_75(runner: Runner) -> None:
    write_tables(runner.directory)
    finished = _stopped_after(runner, b"searching for 300 s, 2 at a time")
    assert finished.code == 75
    assert re.search(r"stopped by SIGTERM after .*, before the first model had predicted anything", finished.lines[-1])
    assert {path.name for path in runner.directory.rglob("*") if path.is_file()} == {
        f"{table}.parquet" for table in ("training", "validation", "live", "tournament")
    }


def test_auto_weka_stop_request_delivers_ready_predictions(runner: Runner) -> None:
    write_tables(runner.directory)
    stopped = assert_stopped_in_search(_stopped_after(runner, b"ready for a stop request: "))
    report, predictions = stopped.report, stopped.predictions
    note = r"stopped by SIGTERM after .*: using weka\.\S+ \(error 0\..*in a search of 5 min 00 s"
    assert re.match(note, report["notes"][-1])
    assert 0 < report["chosen"]["seconds_searched"] < 300
    assert report["validation"]["correlation"] > 0.1
    # the same as without a search in parallel, and with all of the memory
    alone = assert_succeeded(runner.run("auto_weka", {}, EMBARGO="0", **FEW_RUNS))
    assert [report["chosen"][name] for name in ("learner", "options")] == [
        alone.report["chosen"][name] for name in ("learner", "options")
    ]
    assert predictions == {row: alone.predictions[row] for row in predictions}


# simulates the kernel when a learner exceeds the memory
KILL_A_LEARNER = """
import os, signal
from pathlib import Path

while True:
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"autoweka.smac.SMACWrapper" in Path(f"/proc/{process}/cmdline").read_bytes().split(bytes(1)):
                os.kill(int(process), signal.SIGKILL)
                raise SystemExit
        except (FileNotFoundError, ProcessLookupError):
            pass
"""


def test_auto_weka_killed_learner_does_not_end_the_search(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start("auto_weka", {}, **FEW_RUNS | {"RUN_LIMIT": "3"})
    next(line for line in container.logs(stream=True) if b"searching for 200 s, 1 at a time" in line)
    assert container.exec_run(["timeout", "100", "python", "-c", KILL_A_LEARNER], user=USER).exit_code == 0
    chosen = assert_succeeded(runner.wait(container, "auto_weka")).report["chosen"]
    assert chosen["failed_runs"] == 1
    assert chosen["runs"] >= 3
    assert [tried["error"] is None for tried in chosen["tried"]].count(True) == 1


def test_image_has_auto_weka_without_its_python_package(
    engine: docker.DockerClient, model_image: Callable[[str], str]
) -> None:
    command = "find / -xdev \\( -name 'pyautoweka*' -o -name autoweka.jar \\) -not -path '/proc/*' 2>/dev/null; true"
    output = engine.containers.run(
        model_image(IMAGE), ["-c", command], entrypoint="sh", remove=True, network_mode="none"
    ).decode()
    assert [path.rpartition("/")[2] for path in output.split()] == ["autoweka.jar"]


def test_repository_has_no_files_of_auto_weka() -> None:
    kinds = {path.suffix for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert kinds <= {"", ".py", ".md", ".in", ".txt", ".sh", ".xml"}


CALL = (
    'Call: cd "/tmp/x/." ;  java -Xmx9m -cp a.jar autoweka.smac.SMACWrapper -prop p=q -prop r=s -wrapper '
    "seed=0:numFolds=4:fold={fold} 0 6.0 2147483647 -1 -targetclass 'weka.classifiers.{learner}' -_0__x_01_INT_M '7.6' "
)
RESULT = (
    "Iteration 2: Completed run for config 4 (0xB7DD) on instance 3 => Result: {result}, response: {error}, wallclock"
)


def test_search_log_ranks_by_error_and_number_of_folds(load_module: Any) -> None:
    log = load_module("_search_log").SearchLog()
    for seed, learner, fold, result, error in (
        (67, "Slow", 0, "CRASHED", "1.0E10"),
        (67, "Good", 0, "SAT", "0.49"),
        (68, "Good", 1, "SAT", "0.48"),
        (68, "Lucky", 0, "SAT", "0.40"),
        (67, "Fair", 0, "SAT", "0.49"),
        (67, "Fair", 1, "SAT", "0.491"),
        (67, "Broken", 0, "SAT", "0.3"),
        (67, "Broken", 1, "TIMEOUT", "1.0E10"),
    ):
        assert not log.read("[INFO ] " + CALL.format(fold=fold, learner=learner), seed, 1.0)
        assert log.read("[INFO ] " + RESULT.format(result=result, error=error), seed, 2.0)
    assert [one.learner.rpartition(".")[2] for one in log.ranked()] == ["Good", "Fair", "Lucky"]
    assert log.ranked()[0].error == pytest.approx(0.485)
    assert log.ranked()[0].options == "-M 8"
    assert [one.learner.rpartition(".")[2] for one in log.tried] == ["Slow", "Good", "Lucky", "Fair", "Broken"]
    assert (log.runs, log.failed_runs) == (8, 2)
    assert log.trajectory == [
        (2.0, 0.49, "weka.classifiers.Good"),
        (2.0, 0.485, "weka.classifiers.Good"),
    ]


@pytest.fixture
def plan(load_module: Any, tmp_path: Path) -> Any:
    """Plan a search of 600 s on two cores."""
    table = tmp_path / "training.arff"
    return load_module("_budget").SearchPlan(tmp_path, table, table, [67, 68], 600, 60, None, 256, 768, 256, "rmse")


def _search_log(load_module: Any, **errors: str) -> Any:
    """Create the log of a search with learners, each with an error on one fold."""
    log = load_module("_search_log").SearchLog()
    for learner, error in errors.items():
        log.read("[INFO ] " + CALL.format(fold=0, learner=learner), 67, 1.0)
        log.read("[INFO ] " + RESULT.format(result="SAT", error=error), 67, 2.0)
    return log


class TrainerRig:
    """A background trainer with a clock that the test sets, and work that takes 10 s of processor time."""

    def __init__(self, load_module: Any, plan: Any, **failures: Exception) -> None:
        self.now, self.lines, self.started = 0.0, list[str](), list[str]()
        self.discarded = list[str]()
        self._failures = failures
        self.trainer = load_module("_background").BackgroundTrainer(
            plan, self._work, self.lines.append, lambda: self.now
        )

    def _work(self, candidate: Any, budget: Any) -> Any:
        learner = candidate.learner.rpartition(".")[2]
        self.started.append(learner)
        budget.spent = 10.0
        if learner in self._failures:
            raise self._failures[learner]
        model = SimpleNamespace(discard=lambda: self.discarded.append(learner))
        return SimpleNamespace(model=model, predictions=np.array([float(len(self.started))]))

    def update(self, log: Any) -> None:
        """Update, and wait for the end of the job that this starts."""
        self.trainer.update(log)
        self.trainer._pool.submit(int).result()

    def update_until_a_line(self, log: Any) -> str:
        before = len(self.lines)
        while len(self.lines) == before:
            self.trainer.update(log)
        return self.lines[-1]


def test_background_trainer_uses_a_small_share_of_the_time(load_module: Any, plan: Any) -> None:
    rig = TrainerRig(load_module, plan)
    with rig.trainer as trainer:
        rig.update(_search_log(load_module))
        assert rig.started == []
        log = _search_log(load_module, Fair="0.49")
        assert rig.update_until_a_line(log) == (
            "ready for a stop request: weka.classifiers.Fair (error 0.490000) on the rows of the search, after 10 s of "
            "processor time"
        )
        better = _search_log(load_module, Fair="0.49", Good="0.48")
        # 15 % of two cores' time: not yet, or enough for the last prediction and as much again
        rig.now = 66.0
        rig.update(better)
        assert rig.started == ["Fair"]
        rig.now = 67.0
        assert "Good" in rig.update_until_a_line(better)
        # the same best is not trained again
        rig.now = 600.0
        rig.update(better)
    assert rig.started == ["Fair", "Good"]
    candidate, trained = trainer.predictor.latest
    assert candidate is better.ranked()[0]
    assert trained.predictions.tolist() == [2.0]
    # the replaced model, and only that
    assert rig.discarded == ["Fair"]


def test_background_trainer_failed_best_is_replaced_by_the_next(load_module: Any, plan: Any) -> None:
    constant = load_module("_predict").UnusableError("it predicts 0.5000 for every row")
    costly = load_module("_predict").CostlyError("its predictions take about 200 s")
    rig = TrainerRig(load_module, plan, Constant=constant, Broken=OSError(28, "No space left on device"), Costly=costly)
    log = _search_log(load_module, Constant="0.46", Broken="0.47", Costly="0.48", Fair="0.49")
    with rig.trainer as trainer:
        for number, text in enumerate(("0.5000 for every row", "No space left", "about 200 s", "ready for a stop")):
            rig.now = 100.0 * number
            assert text in rig.update_until_a_line(log)
        rig.now = 600.0
        rig.update(log)
    assert rig.started == ["Constant", "Broken", "Costly", "Fair"]
    assert [one["learner"].rpartition(".")[2] for one in trainer.failed] == ["Constant", "Broken"]
    assert trainer.unusable == [(log.ranked()[0], "it predicts 0.5000 for every row")]


def test_background_trainer_end_of_the_search_cancels_the_job(load_module: Any, plan: Any) -> None:
    java, background = load_module("_java"), load_module("_background")
    cancelled: list[bool] = []

    def finish_when_cancelled(_candidate: Any, budget: Any) -> NDArray[np.float64]:
        while not budget.is_cancelled():
            pass
        return np.array([0.5])

    def run_endlessly(_candidate: Any, budget: Any) -> NDArray[np.float64]:
        try:
            java.run(["sleep", "600"], plan.directory, budget)
        finally:
            cancelled.append(budget.is_cancelled())
        return np.array([0.5])

    with background.BackgroundTrainer(plan, finish_when_cancelled, str) as trainer:
        trainer.update(_search_log(load_module, Fair="0.49"))
    assert trainer.predictor.latest[1].tolist() == [0.5]

    with background.BackgroundTrainer(plan, run_endlessly, str) as trainer:
        trainer.update(_search_log(load_module, Fair="0.49"))
    assert cancelled == [True]
    assert trainer.predictor.latest is None
    assert trainer.failed == []


class FinishRig:
    """The end of a search with learners, some of which fail when they are trained on a number of rows."""

    def __init__(self, load_module: Any, plan: Any, *, available: int, ready: Any = None) -> None:
        self.notes, self.trained = list[str](), list[tuple[str, list[int]]]()
        self.discarded = list[tuple[str, int]]()
        self.background = SimpleNamespace(predictor=SimpleNamespace(latest=ready), unusable=[], failed=[])
        self.failures: dict[tuple[str, int], Exception] = {}
        self._load_module, self._plan, self._available = load_module, plan, available

    def finish(self, log: Any) -> Any:
        task = SimpleNamespace(note=self.notes.append, progress=SimpleNamespace(log=self.notes.append))
        trainer = SimpleNamespace(available=lambda limit: min(limit, self._available), train=self._train)
        return self._load_module("auto_weka_operation")._finish(
            task,
            self._plan,
            min(20_000, self._available),
            [None] * 4_000_000,
            log,
            self.background,
            trainer,
            200_000,
            lambda: False,
        )

    def _train(self, _plan: Any, candidate: Any, limits: Any, *_: Any) -> Any:
        learner = candidate.learner.rpartition(".")[2]
        self.trained.append((learner, list(limits)))
        if (learner, limits[0]) in self.failures:
            raise self.failures[learner, limits[0]]
        model = SimpleNamespace(
            predict_within=lambda *_: np.array([0.5]),
            discarded_on_error=contextlib.nullcontext,
            discard=lambda: self.discarded.append((learner, limits[0])),
        )
        return model, limits[0]


def test_finish_ready_best_is_not_trained_again(load_module: Any, plan: Any) -> None:
    log = _search_log(load_module, Good="0.48", Fair="0.49")
    rig = FinishRig(load_module, plan, available=3_000, ready=(log.ranked()[0], "trained"))
    result, failed = rig.finish(log)
    assert (result.candidate, result.trained, result.rows, failed) == (log.ranked()[0], "trained", 3_000, [])
    assert rig.trained == []
    assert rig.notes[-1] == "weka.classifiers.Good was trained during the search"


def test_finish_best_is_trained_on_more_rows_after_a_trial(load_module: Any, plan: Any) -> None:
    log = _search_log(load_module, Constant="0.46", Slow="0.47", Good="0.48", Fair="0.49")
    rig = FinishRig(load_module, plan, available=2_000_000)
    rig.background.unusable.append((log.ranked()[0], "it predicts 0.5000 for every row"))
    rig.failures["Slow", 20_000] = load_module("_predict").UnusableError("its predictions would take more than 600 s")
    result, failed = rig.finish(log)
    # the trial, on the rows of the search, decides before minutes of training on more rows
    assert rig.trained == [("Slow", [20_000]), ("Good", [20_000]), ("Good", [200_000, 50_000])]
    assert (result.candidate.learner, result.rows) == ("weka.classifiers.Good", 200_000)
    assert rig.discarded == [("Good", 20_000)]
    assert [one["why"] for one in failed] == [
        "it predicts 0.5000 for every row",
        "its predictions would take more than 600 s",
    ]
    assert rig.notes[-1].startswith("rejected weka.classifiers.Slow (error 0.470000): its predictions would take")


def test_finish_ready_best_is_trained_on_more_rows_only(load_module: Any, plan: Any) -> None:
    log = _search_log(load_module, Good="0.48")
    discarded = list[str]()
    model = SimpleNamespace(discard=lambda: discarded.append("ready"))
    ready = log.ranked()[0], SimpleNamespace(model=model, predictions=np.array([0.5]))
    rig = FinishRig(load_module, plan, available=60_000, ready=ready)
    assert rig.finish(log)[0].rows == 200_000
    assert (rig.trained, discarded) == ([("Good", [200_000, 50_000])], ["ready"])
    rig.failures["Good", 200_000] = load_module("_java").ProgramError("not finished after 60 s")
    assert rig.finish(log)[0] == (*ready, 20_000)


def test_finish_failure_on_more_rows_uses_the_trial(load_module: Any, plan: Any) -> None:
    log = _search_log(load_module, Good="0.48")
    rig = FinishRig(load_module, plan, available=60_000)
    rig.failures["Good", 200_000] = load_module("_java").ProgramError("not finished after 60 s")
    result, failed = rig.finish(log)
    assert (result.rows, failed, rig.discarded) == (20_000, [], [])
    assert "on more than 20,000 rows: not finished after 60 s; using the model of these rows" in rig.notes[-1]


def test_finish_without_any_usable_model_raises_no_model(load_module: Any, plan: Any) -> None:
    log = _search_log(load_module, Slow="0.47")
    rig = FinishRig(load_module, plan, available=60_000)
    rig.failures["Slow", 20_000] = load_module("_predict").UnusableError("its predictions would take more than 600 s")
    with pytest.raises(ModelFailureError, match=r"of 1 configurations .* more than 600 s.*automl_minutes") as failure:
        rig.finish(log)
    assert failure.value.exit is Exit.NO_MODEL


def test_trainer_failure_on_many_rows_trains_on_fewer(
    load_module: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, errors = load_module("auto_weka_operation"), load_module("_java")
    notes = list[str]()
    task = SimpleNamespace(note=notes.append, progress=SimpleNamespace(step=lambda _text: contextlib.nullcontext()))
    trainer = module.Trainer(task, plan.directory, SimpleNamespace(labels=np.zeros(300_000)))
    monkeypatch.setattr(trainer, "write", lambda limit: (plan.directory / f"{limit}.arff", limit))

    def train(_task: Any, own_plan: Any, *_: Any) -> SimpleNamespace:
        if own_plan.training.stem != "50000":
            raise errors.ProgramError("not finished after 300 s")
        return SimpleNamespace(discarded_on_error=contextlib.nullcontext)

    monkeypatch.setattr(module.WekaModel, "train", train)
    candidate = _search_log(load_module, Good="0.48").ranked()[0]
    checked = list[Any]()
    model, rows = trainer.train(
        plan, candidate, [200_000, 50_000, 20_000], 60.0, lambda model, _: checked.append(model), bool
    )
    assert (rows, checked) == (50_000, [model])
    assert notes == ["weka.classifiers.Good on 200,000 rows: not finished after 300 s; training on fewer"]
    with pytest.raises(errors.ProgramError, match="not finished"):
        trainer.train(plan, candidate, [200_000, 20_000], 60.0, lambda *_: None, bool)


@pytest.mark.parametrize(("seconds_per_row", "is_useful"), [(20e-6, True), (280e-6, True), (2e-3, False)])
def test_require_speed_rejects_predictions_that_take_too_long(
    load_module: Any, monkeypatch: pytest.MonkeyPatch, seconds_per_row: float, is_useful: bool
) -> None:
    module, java = load_module("_predict"), load_module("_java")
    now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))

    def predictions_of(_table: Any, _heap: int, budget: Any, *, first_rows: int) -> None:
        nonlocal now
        seconds = 0.5 + seconds_per_row * first_rows
        now += seconds
        budget.spent += seconds
        if now > budget.deadline:
            raise java.ProgramError("not finished")

    model = module.WekaModel("weka.classifiers.Good", None)
    monkeypatch.setattr(model, "predictions_of", predictions_of)
    budget = java.CpuBudget(10_000.0)
    # two processes predict 4 million rows in 10 minutes, if each takes 300 microseconds for a row
    table = type("Table", (), {"feature_names": ["a"] * 42, "__len__": lambda _: 4_000_000})()
    if is_useful:
        seconds = model.require_speed(table, 256, budget, 2)
        assert seconds == pytest.approx(seconds_per_row * 4_000_000, rel=0.2)
    else:
        with pytest.raises(module.UnusableError, match="4,000,000 rows would take more than 600 s"):
            model.require_speed(table, 256, budget, 2)


@pytest.mark.parametrize(("to_predict", "with_lazy"), [(10_000, True), (4_000_000, False)])
def test_create_plan_lazy_learners_need_few_rows_to_predict(
    load_module: Any, tmp_path: Path, to_predict: int, with_lazy: bool
) -> None:
    arff = tmp_path / "training.arff"
    arff.touch()
    notes = list[str]()
    task = SimpleNamespace(
        parameters=Parameters({"OPERATION": "auto_weka", "SEED": "1", "THREADS": "2", "MEMORY_LIMIT": "4096"}),
        sizes=Sizes(100_000, to_predict, 42),
        training=SimpleNamespace(feature_names=["a"] * 42),
        note=notes.append,
    )
    found = load_module("_budget").create_plan(task, tmp_path, arff, arff, rows=20_000, to_predict=to_predict)
    assert found.with_lazy is with_lazy
    assert len(found.seeds) == 2
    assert len(notes) == (not with_lazy)
    excluded = load_module("_search").excluded_learners(found)
    assert [name for name in ("weka.classifiers.lazy.IBk",) if name.startswith(excluded)] == (
        [] if with_lazy else ["weka.classifiers.lazy.IBk"]
    )


@pytest.mark.parametrize(
    ("failure", "fails_from", "stop", "rows", "note"),
    [
        (None, 0, [], 800_000, None),
        (("ProgramError", "it wrote no model"), 50_000, [], 0, "no final fit, using the first: it wrote no model"),
        (("ProgramError", "too slow"), 800_000, [], 200_000, "no final fit on more than 200,000 rows: too slow"),
        (("CancelledError", ""), 50_000, [signal.SIGTERM], 0, "no final fit, using the first: stopped by SIGTERM"),
    ],
)
def test_train_again_keeps_the_model_of_most_rows(
    load_module: Any,
    plan: Any,
    failure: tuple[str, str] | None,
    fails_from: int,
    stop: list[signal.Signals],
    rows: int,
    note: str | None,
) -> None:
    module = load_module("auto_weka_operation")
    notes, tried, discarded = list[str](), list[int](), list[int]()

    def train(_plan: Any, _candidate: Any, limits: list[int], *_: Any) -> tuple[SimpleNamespace, int]:
        (limit,) = limits
        tried.append(limit)
        if failure is not None and limit >= fails_from:
            raise getattr(load_module("_java"), failure[0])(failure[1])
        return SimpleNamespace(rows=limit, discard=lambda: discarded.append(limit)), limit

    first = SimpleNamespace(rows=0, discard=lambda: discarded.append(0))
    trainer = SimpleNamespace(train=train, write_header=lambda: None, available=lambda limit: min(limit, 800_000))
    candidate = _search_log(load_module, Good="0.48").ranked()[0]
    choice = module.Choice(plan, candidate, first, 2_000_000)
    fitted = module._train_again(SimpleNamespace(note=notes.append), choice, trainer, stop)
    assert fitted.model.rows == fitted.summary.training_rows == rows
    assert fitted.summary.chosen == {"refitted": rows > 0}
    assert notes == ([] if note is None else [note])
    assert tried == [50_000, 200_000, 800_000][: len(tried)]
    # of all models but the one that is returned
    assert discarded == [0, 50_000, 200_000, 800_000][: [0, 50_000, 200_000, 800_000].index(rows)]


def test_java_run_limits_are_enforced(load_module: Any, tmp_path: Path) -> None:
    java = load_module("_java")

    def run(*command_line: str, seconds: float = 60, **limits: Any) -> str:
        output: str = java.run(command_line, tmp_path, java.CpuBudget(time.monotonic() + seconds, **limits))
        return output

    assert int(run("nice")) == os.nice(0)
    assert int(run("nice", in_background=True)) == os.nice(0) + 5
    with pytest.raises(java.ProgramError, match="not finished after 0 s"):
        run("sleep", "600", seconds=0.3)
    with pytest.raises(java.ProgramError, match="not finished after 1 s of processor time"):
        run("sh", "-c", "while :; do :; done", cpu_seconds=0.6)
    with pytest.raises(java.CancelledError):
        run("sleep", "600", is_cancelled=lambda: True)


def test_weka_options_nested_arguments_are_converted(load_module: Any) -> None:
    space = (
        *("-_1_W", "weka.classifiers.functions.SMO", "-_1_W_0_DASHDASH", "REMOVED"),
        *("-_1_W_1__wcfsmo_00_0_C", "0.9", "-_1_W_1__wcfsmo_02_2_M", "REMOVED"),
        *("-_1_W_1__wcfsmo_03_3_REG_IGNORE_QUOTE_START_K", "weka.Puk", "-_1_W_1__wcfsmo_08_4_puk_S", "4.5"),
        *("-_1_W_1__wcfsmo_11_5_QUOTE_END", "REMOVED", "-_1_W_1__wcfsmo_01_1_N", "0"),
        *("-targetclass", "weka.classifiers.meta.Bagging", "-_0__wcmb_00_INT_P", "10.4"),
        *("-_0__wcmb_02_HIDDEN", "1", "-_0__wcmb_03_O", "REMOVE_PREV"),
    )
    assert load_module("_search_log").weka_options(space) == [
        *("-P", "10", "-W", "weka.classifiers.functions.SMO", "--"),
        *("-C", "0.9", "-N", "0", "-M", "-K", "weka.Puk -S 4.5"),
    ]


HEADER = """@relation 'rows-weka.filters.MultiFilter'

@attribute distribution_{} numeric
@attribute distribution_{} numeric

@data
"""


@pytest.mark.parametrize(
    ("classes", "rows", "expected"),
    [
        # class 0 first, as in the file of the training rows
        ("01", "0.8,0.2\n0.3,0.7\n", [0.2, 0.7]),
        ("10", "0.2,0.8\n0.7,0.3\n", [0.2, 0.7]),
        # undecided learners
        ("01", "0.8,0.2\n0,0\n", [0.2, 0.5]),
        ("01", "0.8,0.2\n?,?\n", [0.2, 0.5]),
        # a regression's values, which are no distribution
        ("01", "1.5,0.5\n0,1\n", [0.25, 1.0]),
    ],
)
def test_probabilities_any_column_order_returns_class_1(
    load_module: Any, tmp_path: Path, classes: str, rows: str, expected: list[float]
) -> None:
    path = tmp_path / "rows.arff"
    path.write_text(HEADER.format(*classes) + rows)
    assert load_module("_weka_predictions").probabilities(path, 2).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "rows", "message"),
    [
        ("01", "0.8,0.2\n", "predicted 1 of 2 rows"),
        ("01", "0.8,0.2\n0.8\n", "not readable"),
        ("02", "0.8,0.2\n0.8,0.2\n", "the columns .*'distribution_2'"),
    ],
)
def test_probabilities_inconsistent_rows_raise_program_error(
    load_module: Any, tmp_path: Path, classes: str, rows: str, message: str
) -> None:
    path = tmp_path / "rows.arff"
    path.write_text(HEADER.format(*classes) + rows)
    with pytest.raises(load_module("_java").ProgramError, match=message):
        load_module("_weka_predictions").probabilities(path, 2)


def test_arff_write_matches_the_format(load_module: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.arff"
    values = np.array([[0.25, np.nan], [1e-7, 3]], dtype=np.float32)
    labels = np.array([1, 0], dtype=np.int8)
    load_module("_arff").write(path, 2, [(values, labels), (np.array([[4, 0]], dtype=np.int8), None)])
    header, rows = path.read_text().split("@data\n")
    assert header == "@relation numerai\n@attribute f0 numeric\n@attribute f1 numeric\n@attribute class {0,1}\n"
    assert rows == "0.25,?,1\n1e-7,3,0\n4,0,?\n"
