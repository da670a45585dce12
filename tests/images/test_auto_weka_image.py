"""The Auto-WEKA image: what its search finds and says, and how it ends."""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import USER, Ended, Runner, binary, five_bins, good, graded, spoilt, write_tables
from tests.images.signals import write_known_signal
from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import docker
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "auto_weka"
FOLDER = ROOT / "model_images" / "auto_weka"
# a limit of runs, and times that nobody reaches: what is tried depends on the seed alone
FEW_RUNS = {"RUN_LIMIT": "1", "TIME_LIMIT": "200", "TIME_LIMIT_PART": "100", "THREADS": "1"}
# what two searches at once need, and what predicts beside them
ROOM = {"mem_limit": "3g", "memswap_limit": "3g"}
TWO = {"THREADS": "2", "MEMORY_LIMIT": "3072"}


@pytest.fixture(scope="module")
def part() -> Any:
    """Import a module of the operation by its name, without the image."""
    package = ModuleType("auto_weka_operation")
    package.__path__ = [str(FOLDER)]
    sys.modules[package.__name__] = package
    return lambda name: importlib.import_module(f"{package.__name__}.{name}")


def test_beats_a_coin_in_the_time_it_was_given_and_says_how_it_goes(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 10_000)
    ended = good(runner.run("auto_weka", ROOM, TIME_LIMIT="40", **TWO))
    report, chosen = ended.report, ended.report["chosen"]
    # measured with seeds 67 and 5, 6 and 10 configurations tried: a gain of .0203, correlation .196, consistency 70 %
    assert report["validation"]["logloss"] < signal.coin_toss - 0.012
    assert report["validation"]["consistency"] >= 0.6
    # not inverted
    assert report["validation"]["correlation"] > 0.12
    assert report["rows"] == {"training": 10_000, "held_out": 0, "tournament": 2_100}

    assert chosen["learner"].startswith("weka.classifiers.")
    assert chosen["weka"] == "3.7.7"
    assert chosen["smac"] == "2.04.01"
    assert chosen["java"].startswith("17.")
    assert chosen["metric"] == "rmse"
    assert chosen["seeds"] == [67, 68]
    assert 1 <= chosen["configurations"] == len(chosen["tried"])
    assert chosen["runs"] >= chosen["configurations"]
    assert all(0 < point["seconds"] <= 41 and 0.4 < point["error"] < 0.6 for point in chosen["trajectory"])
    judged = [tried["error"] for tried in chosen["tried"] if tried["error"] is not None and tried["folds"] > 1]
    assert chosen["error"] <= min(judged, default=1) or chosen["passed_over"]

    progress = [line for line in ended.lines if "configurations tried" in line and line.startswith("[")]
    state = r"\[ *\d+ %\] \d+ of 40 s, \d+ configurations tried, (none successful yet|best error 0\.\d{4})"
    assert progress
    assert all(re.match(state, line) for line in progress)
    # on the second, but for what comes before: Auto-WEKA's own preparation, which a busy machine draws out
    took = next(line for line in ended.lines if line.startswith("searching for 40 s, 2 at a time: done in "))
    minutes, seconds = re.findall(r"done in (?:(\d+) min )?(\d+) s$", took)[0]
    assert int(minutes or 0) * 60 + int(seconds) < 100


def test_finds_nothing_where_there_is_nothing_and_still_predicts(runner: Runner) -> None:
    write_known_signal(runner.directory, 3_000, shuffled=True)
    # a seed that comes upon one that says something
    ended = good(runner.run("auto_weka", {}, **FEW_RUNS | {"RUN_LIMIT": "8", "SEED": "68"}))
    # the contract refuses a constant, which is what most learners rightly say here (measured: BayesNet passed over,
    # Logistic taken: logloss .6969, correlation +.003)
    assert ended.report["validation"]["logloss"] > math.log(2) - 0.005
    assert abs(ended.report["validation"]["correlation"]) < 0.12
    passed_over = ended.report["chosen"]["passed_over"]
    assert re.fullmatch(r"it says 0\.\d{4} of every row", passed_over[0]["why"])
    assert any(note.startswith(f"passed over {passed_over[0]['learner']}") for note in ended.report["notes"])


def test_a_limit_of_runs_repeats_a_search_and_a_seed_changes_it(runner: Runner) -> None:
    write_tables(runner.directory)
    limits = FEW_RUNS | TWO | {"RUN_LIMIT": "4"}
    first = good(runner.run("auto_weka", ROOM, **limits))
    again = good(runner.run("auto_weka", ROOM, **limits))

    def by_seed(ended: Ended, seed: int) -> list[tuple[str, str]]:
        # both searches begin with the same, which is put down once, for the one that was ahead
        beginning, *rest = ended.report["chosen"]["tried"]
        tried = [(one["learner"], one["options"]) for one in rest if one["seed"] == seed]
        return [one for one in tried if one != (beginning["learner"], beginning["options"])]

    # which of two searches is ahead is nobody's business; what each does is
    for seed in (67, 68):
        assert by_seed(first, seed) == by_seed(again, seed)
    assert by_seed(first, 67)
    assert by_seed(first, 67) != by_seed(first, 68)
    assert first.predictions_bytes == again.predictions_bytes


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    report = good(runner.run("auto_weka", {}, **FEW_RUNS)).report
    assert report["validation"]["logloss"] < 0.685
    assert report["validation"]["correlation"] > 0.1


def test_takes_five_bins_and_grades(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    ended = good(runner.run("auto_weka", {}, **FEW_RUNS))
    assert "42 features (int8)" in ended.lines[0]
    assert ended.report["target"] == "graded"
    assert ended.report["validation"]["correlation"] > 0.1
    targets = pq.read_table(runner.directory / "training.parquet", columns=["target"])["target"].to_numpy()
    assert ended.report["rows"]["training"] == 3_000 - int((targets == 0.5).sum())


def _many(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    """Features like those of the medium set: 780 of them, from 0 to 4."""
    return random.integers(0, 5, (rows, 780), dtype=np.int8)


def test_takes_many_features_and_samples_above_its_row_limit(runner: Runner) -> None:
    write_tables(runner.directory, _many)
    ended = good(runner.run("auto_weka", {}, ROW_LIMIT="1500", **FEW_RUNS))
    assert "learning from 1,500 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)" in ended.report["notes"]
    assert ended.report["rows"]["training"] == 1_500
    assert ended.report["features"] == 780


def _stopped_after(runner: Runner, line: bytes) -> Ended:
    """Stop a search that has time once it has said something."""
    container = runner.start("auto_weka", ROOM, TIME_LIMIT="300", **TWO)
    next(said for said in container.logs(stream=True) if line in said)
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    return runner.ended(container, "auto_weka")


def test_stops_at_once_when_nothing_is_ready(runner: Runner) -> None:
    write_tables(runner.directory)
    ended = _stopped_after(runner, b"searching for 300 s, 2 at a time")
    assert ended.code == 75
    assert re.search(r"stopped by SIGTERM after .*, before the first model had predicted anything", ended.lines[-1])
    assert {path.name for path in runner.directory.rglob("*") if path.is_file()} == {
        "training.parquet",
        "tournament.parquet",
    }


def test_gives_the_best_that_is_ready_when_asked_to_stop(runner: Runner) -> None:
    write_tables(runner.directory)
    stopped = good(_stopped_after(runner, b"ready, should it be stopped: "))
    report, predictions = stopped.report, stopped.predictions_bytes
    note = r"stopped by SIGTERM after .* of a search of 5 min 00 s: these are the predictions of weka\.\S+ \(error 0\."
    assert re.match(note, report["notes"][-1])
    assert 0 < report["chosen"]["seconds_searched"] < 300
    assert report["validation"]["correlation"] > 0.1
    # the very same as of one who has nothing else to do, and all the memory
    alone = good(runner.run("auto_weka", {}, **FEW_RUNS))
    assert [report["chosen"][name] for name in ("learner", "options")] == [
        alone.report["chosen"][name] for name in ("learner", "options")
    ]
    assert predictions == alone.predictions_bytes


# what the kernel does when a learner is what the memory does not suffice for
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


def test_a_learner_killed_for_its_memory_does_not_end_the_search(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start("auto_weka", {}, **FEW_RUNS | {"RUN_LIMIT": "3"})
    next(said for said in container.logs(stream=True) if b"searching for 200 s, 1 at a time" in said)
    assert container.exec_run(["timeout", "100", "python", "-c", KILL_A_LEARNER], user=USER).exit_code == 0
    chosen = good(runner.ended(container, "auto_weka")).report["chosen"]
    assert chosen["failed_runs"] == 1
    assert chosen["runs"] >= 3
    assert [tried["error"] is None for tried in chosen["tried"]].count(True) == 1


@pytest.mark.parametrize(
    ("environment", "code", "last_line"),
    [
        ({"METRIC": "auc"}, 64, "METRIC is 'auc': allowed are rmse, errorRate"),
        ({"ROW_LIMIT": "1"}, 64, "ROW_LIMIT is '1': allowed is a whole number from 100"),
        ({"MEMORY_LIMIT": "1500"}, 71, "the memory of 1,500 MiB was not enough"),
    ],
)
def test_mistakes_end_in_their_code(runner: Runner, environment: dict[str, str], code: int, last_line: str) -> None:
    write_tables(runner.directory)
    ended = runner.run("auto_weka", {}, **environment)
    assert ended.code == code
    assert last_line in ended.lines[-1]


def test_one_class_is_bad_data(runner: Runner) -> None:
    write_tables(runner.directory, target=lambda chance, random: binary(np.ones_like(chance), random))
    ended = runner.run("auto_weka")
    assert ended.code == 65
    assert ended.lines[-1].startswith("FAILED (65, bad data): training.parquet: column 'target' ")


def test_the_parts_are_in_the_image_without_the_package_they_came_in(
    engine: docker.DockerClient, model_image: Callable[[str], str]
) -> None:
    look = "find / -xdev \\( -name 'pyautoweka*' -o -name autoweka.jar \\) -not -path '/proc/*' 2>/dev/null; true"
    said = engine.containers.run(
        model_image(IMAGE), ["-c", look], entrypoint="sh", remove=True, network_mode="none"
    ).decode()
    assert [path.rpartition("/")[2] for path in said.split()] == ["autoweka.jar"]


def test_nothing_of_auto_weka_is_in_the_repository() -> None:
    kinds = {path.suffix for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert kinds <= {"", ".py", ".md", ".in", ".txt", ".sh", ".xml"}


CALL = (
    'Call: cd "/tmp/x/." ;  java -Xmx9m -cp a.jar autoweka.smac.SMACWrapper -prop p=q -prop r=s -wrapper '
    "seed=0:numFolds=4:fold={fold} 0 6.0 2147483647 -1 -targetclass 'weka.classifiers.{learner}' -_0__x_01_INT_M '7.6' "
)
RESULT = (
    "Iteration 2: Completed run for config 4 (0xB7DD) on instance 3 => Result: {result}, response: {error}, wallclock"
)


def test_a_journal_ranks_by_error_trusts_no_single_fold_and_survives_a_killed_candidate(part: Any) -> None:
    journal = part("_candidates").Journal()
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
        assert not journal.read("[INFO ] " + CALL.format(fold=fold, learner=learner), seed, 1.0)
        assert journal.read("[INFO ] " + RESULT.format(result=result, error=error), seed, 2.0)
    assert [one.learner.rpartition(".")[2] for one in journal.ranked()] == ["Good", "Fair", "Lucky"]
    assert journal.ranked()[0].error == pytest.approx(0.485)
    assert journal.ranked()[0].options == "-M 8"
    assert [one.learner.rpartition(".")[2] for one in journal.tried] == ["Slow", "Good", "Lucky", "Fair", "Broken"]
    assert (journal.runs, journal.failed_runs) == (8, 2)
    assert journal.trajectory == [
        (2.0, 0.49, "weka.classifiers.Good"),
        (2.0, 0.485, "weka.classifiers.Good"),
    ]


@pytest.fixture
def plan(part: Any, tmp_path: Path) -> Any:
    """Plan a search of 600 s on two cores."""
    table = tmp_path / "training.arff"
    return part("_plan").Plan(tmp_path, table, table, [67, 68], 600, 60, None, 256, 256, "rmse")


def _tried(part: Any, **errors: str) -> Any:
    """Put down searches that tried learners, each on one fold."""
    journal = part("_candidates").Journal()
    for learner, error in errors.items():
        journal.read("[INFO ] " + CALL.format(fold=0, learner=learner), 67, 1.0)
        journal.read("[INFO ] " + RESULT.format(result="SAT", error=error), 67, 2.0)
    return journal


class Desk:
    """A forecaster with a clock to turn, and work that takes 10 s of the processor's time."""

    def __init__(self, part: Any, plan: Any, **failures: Exception) -> None:
        self.now, self.said, self.begun = 0.0, list[str](), list[str]()
        self._failures = failures
        self.forecaster = part("_forecasts").Forecaster(plan, self._work, self.said.append, lambda: self.now)

    def _work(self, candidate: Any, allowance: Any) -> NDArray[np.float64]:
        learner = candidate.learner.rpartition(".")[2]
        self.begun.append(learner)
        allowance.spent = 10.0
        if learner in self._failures:
            raise self._failures[learner]
        return np.array([float(len(self.begun))])

    def look(self, journal: Any) -> None:
        """Look, and let whatever that begins come to its end."""
        self.forecaster.look(journal)
        self.forecaster._thread.submit(int).result()

    def look_until_something_is_said(self, journal: Any) -> str:
        before = len(self.said)
        while len(self.said) == before:
            self.forecaster.look(journal)
        return self.said[-1]


def test_the_best_so_far_predicts_beside_the_search_and_takes_a_small_share(part: Any, plan: Any) -> None:
    desk = Desk(part, plan)
    with desk.forecaster as forecaster:
        desk.look(_tried(part))
        assert desk.begun == []
        journal = _tried(part, Fair="0.49")
        assert desk.look_until_something_is_said(journal) == (
            "ready, should it be stopped: weka.classifiers.Fair (error 0.4900) on all rows, for 10 s of the "
            "processor's time"
        )
        better = _tried(part, Fair="0.49", Good="0.48")
        # 15 % of two cores' time: enough for what was spent and as much again, or not yet
        desk.now = 66.0
        desk.look(better)
        assert desk.begun == ["Fair"]
        desk.now = 67.0
        assert "Good" in desk.look_until_something_is_said(better)
        # the same best needs nothing more
        desk.now = 600.0
        desk.look(better)
    assert desk.begun == ["Fair", "Good"]
    assert forecaster.ready.candidate is better.ranked()[0]
    assert forecaster.ready.probabilities.tolist() == [2.0]


def test_the_next_best_is_made_ready_where_the_best_cannot(part: Any, plan: Any) -> None:
    constant = part("_java").ProgramError("it says 0.5000 of every row")
    desk = Desk(part, plan, Constant=constant, Broken=OSError(28, "No space left on device"))
    journal = _tried(part, Constant="0.47", Broken="0.48", Fair="0.49")
    with desk.forecaster as forecaster:
        for now, word in ((0.0, "0.5000 of every row"), (100.0, "No space left"), (200.0, "ready, should")):
            desk.now = now
            assert word in desk.look_until_something_is_said(journal)
        desk.now = 600.0
        desk.look(journal)
    assert desk.begun == ["Constant", "Broken", "Fair"]
    assert [one["learner"].rpartition(".")[2] for one in forecaster.passed_over] == ["Constant", "Broken"]


def test_what_is_done_when_the_search_ends_counts_and_what_is_not_is_given_up(part: Any, plan: Any) -> None:
    java, forecasts = part("_java"), part("_forecasts")
    given_up: list[bool] = []

    def done_at_the_last_moment(_candidate: Any, allowance: Any) -> NDArray[np.float64]:
        while not allowance.unwanted():
            pass
        return np.array([0.5])

    def without_end(_candidate: Any, allowance: Any) -> NDArray[np.float64]:
        try:
            java.run(["sleep", "600"], plan.directory, allowance)
        finally:
            given_up.append(allowance.unwanted())
        return np.array([0.5])

    with forecasts.Forecaster(plan, done_at_the_last_moment, str) as forecaster:
        forecaster.look(_tried(part, Fair="0.49"))
    assert forecaster.ready.probabilities.tolist() == [0.5]

    with forecasts.Forecaster(plan, without_end, str) as forecaster:
        forecaster.look(_tried(part, Fair="0.49"))
    assert given_up == [True]
    assert forecaster.ready is None
    assert forecaster.passed_over == []


def test_the_end_takes_what_is_ready_when_it_is_the_best(part: Any, plan: Any) -> None:
    journal = _tried(part, Good="0.48", Fair="0.49")
    good, _ = journal.ranked()
    ready = part("_forecasts").Forecast(good, np.array([0.5]))
    said: list[str] = []
    task = SimpleNamespace(note=said.append, progress=SimpleNamespace(say=said.append))
    assert part("auto_weka")._finish(task, plan, journal, ready, lambda: False) == (ready, [])
    assert said[-1] == "weka.classifiers.Good was trained on all rows while the search went on"


def test_a_program_gets_what_it_may_take_and_no_more(part: Any, tmp_path: Path) -> None:
    java = part("_java")

    def run(*words: str, seconds: float = 60, **limits: Any) -> str:
        said: str = java.run(words, tmp_path, java.Allowance(time.monotonic() + seconds, **limits))
        return said

    assert int(run("nice")) == os.nice(0)
    assert int(run("nice", in_background=True)) == os.nice(0) + 5
    with pytest.raises(java.ProgramError, match="not done after 0 s"):
        run("sleep", "600", seconds=0.3)
    with pytest.raises(java.ProgramError, match="not done after 1 s of the processor's time"):
        run("sh", "-c", "while :; do :; done", processor_seconds=0.6)
    with pytest.raises(java.GivenUpError):
        run("sleep", "600", unwanted=lambda: True)


def test_options_are_those_of_weka(part: Any) -> None:
    space = (
        *("-_1_W", "weka.classifiers.functions.SMO", "-_1_W_0_DASHDASH", "REMOVED"),
        *("-_1_W_1__wcfsmo_00_0_C", "0.9", "-_1_W_1__wcfsmo_02_2_M", "REMOVED"),
        *("-_1_W_1__wcfsmo_03_3_REG_IGNORE_QUOTE_START_K", "weka.Puk", "-_1_W_1__wcfsmo_08_4_puk_S", "4.5"),
        *("-_1_W_1__wcfsmo_11_5_QUOTE_END", "REMOVED", "-_1_W_1__wcfsmo_01_1_N", "0"),
        *("-targetclass", "weka.classifiers.meta.Bagging", "-_0__wcmb_00_INT_P", "10.4"),
        *("-_0__wcmb_02_HIDDEN", "1", "-_0__wcmb_03_O", "REMOVE_PREV"),
    )
    assert part("_candidates").weka_options(space) == [
        *("-P", "10", "-W", "weka.classifiers.functions.SMO", "--"),
        *("-C", "0.9", "-N", "0", "-M", "-K", "weka.Puk -S 4.5"),
    ]


TITLE = "\n=== Predictions on test data ===\n\n\ninst#,actual,predicted,error,distribution,\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # as our own file has it: class 0 first
        ("1,1:?,1:0,,*0.8,0.2\n2,1:?,2:1,,0.3,*0.7\n", [0.2, 0.7]),
        # the other way round, told by the labels alone
        ("1,1:?,2:0,,0.2,*0.8\n2,1:?,1:1,,*0.7,0.3\n", [0.2, 0.7]),
        # one class in all rows tells the other's column as well
        ("1,1:?,1:0,,*0.8,0.2\n2,1:?,1:0,,*0.6,0.4\n", [0.2, 0.4]),
        ("1,1:?,2:1,,0.2,*0.8\n2,1:?,2:1,,0.4,*0.6\n", [0.8, 0.6]),
        # a learner that cannot decide
        ("1,1:?,1:0,,*0.8,0.2\n2,1:?,?,,0,0\n", [0.2, 0.5]),
    ],
)
def test_probabilities_are_those_of_class_1_whatever_the_columns(
    part: Any, tmp_path: Path, rows: str, expected: list[float]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(TITLE + rows + "\n")
    assert part("_predictions").probabilities(path, 2).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,1:?,1:0,,*0.8,0.2\n", "predicted 1 of 2 rows"),
        ("1,1:?,1:0,,*0.8,0.2\n3,1:?,1:0,,*0.8,0.2\n", "predicted row 3 where row 2 of 2 was due"),
        ("1,1:?,1:0,,*0.8,0.2\n2,1:?,1:0,,0.2,*0.8\n", "change places in row 2"),
        ("1,1:?,1:0,,*0.8,0.2\n2,1:?,1:1,,*0.8,0.2\n", "both classes into one column"),
    ],
)
def test_probabilities_that_contradict_themselves_are_refused(part: Any, tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(TITLE + rows + "\n")
    with pytest.raises(part("_java").ProgramError, match=said):
        part("_predictions").probabilities(path, 2)


def test_tables_are_written_as_weka_reads_them(part: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.arff"
    values = np.array([[0.25, np.nan], [1e-7, 3]], dtype=np.float32)
    labels = np.array([1, 0], dtype=np.int8)
    part("_arff").write(path, 2, [(values, labels), (np.array([[4, 0]], dtype=np.int8), None)])
    header, rows = path.read_text().split("@data\n")
    assert header == "@relation numerai\n@attribute f0 numeric\n@attribute f1 numeric\n@attribute class {0,1}\n"
    assert rows == "0.25,?,1\n1e-7,3,0\n4,0,?\n"
