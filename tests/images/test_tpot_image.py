"""The tpot image: how its search does, what it tells and leaves of it, and how it ends."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from numerai_contract.self_test import write_fixture_inputs
from tests.images.conftest import Ended, Runner, five_bins, good, graded, spoilt, write_tables
from tests.images.signals import write_known_signal

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "tpot"
MODEL = "tpot"
# the pipelines tried first, for a test that is not about how good the best is
SHORT = {"TIME_LIMIT": "240", "TIME_LIMIT_PART": "120", "RUN_LIMIT": "3"}
PYTHON = ("python", "-W", "ignore", "-c")
PROGRESS = re.compile(r"\[ *\d+ %\] \d+ of 20 s, \d+ pipelines tried, generation \d, best logloss (none yet|0\.\d{4})")


def _good(ended: Ended) -> Ended:
    """Check what holds for every search that ends well."""
    good(ended)
    chosen = ended.report["chosen"]
    tried = chosen["pipelines"]
    endings = ("succeeded", "timed_out", "out_of_memory", "crashed", "unfinished")
    assert tried["tried"] == sum(tried[ending] for ending in endings) == len(chosen["candidates"]["first"])
    assert chosen["pipeline"]
    assert (ended.directory / "reports/tpot_pipeline.py.manifest.json").is_file()
    compile(_exported(ended), "tpot_pipeline.py", "exec")
    return ended


def _exported(ended: Ended) -> str:
    return (ended.directory / "reports" / "tpot_pipeline.py").read_text()


def _python(runner: Runner, script: str, **environment: str) -> Ended:
    """Run a script in the image, with all that an operation is told."""
    return runner.run(MODEL, {"entrypoint": [*PYTHON, script]}, **environment)


REFIT = """
import csv, os, runpy
import numpy as np
from numerai_contract import targets
from numerai_contract.embeddings import Embedding
from numerai_contract.parameters import Parameters
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Task
from threadpoolctl import threadpool_limits

task = Task(Parameters(os.environ))
tables = SplitTables(task, targets.classes(task.training), embeddings=[Embedding(5)], row_limit=10_000)
pipeline = runpy.run_path("/data/reports/tpot_pipeline.py")["build"]()
# one thread, as in the search: sums in another order are other sums, which some learners make much of
threadpool_limits(1)
pipeline.fit(tables.training_features(), tables.training_labels)
with open("/data/predictions/tpot.csv", newline="") as stream:
    delivered = np.array([float(row["prediction"]) for row in csv.DictReader(stream)])
for positions, block in tables.tournament_batches():
    difference = np.abs(pipeline.predict_proba(block)[:, 1] - delivered[positions]).max()
    print(f"largest difference {difference:.1e}")
    assert difference < 1e-6
"""


def test_finds_what_can_be_learned_tells_of_it_and_writes_it_down(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 10_000)
    write_fixture_inputs(runner.directory)
    ended = _good(runner.run(MODEL, TIME_LIMIT="20", THREADS="2", INPUTS="0f3a"))
    validation, split, chosen = ended.report["validation"], ended.report["split"], ended.report["chosen"]
    assert validation["logloss"] < signal.coin_toss - 0.02
    assert validation["consistency"] >= 0.7
    assert split["logloss"] < signal.coin_toss - 0.01
    assert ended.report["rows"] == {"training": 9_000, "held_out": 1_000, "tournament": 2_100}
    assert (chosen["search_space"], chosen["folds"]) == ("weak-signal", 3)
    assert (chosen["seconds_per_pipeline"], chosen["at_a_time"]) == (3, 2)
    assert chosen["pipelines"]["succeeded"] >= 3
    losses = [step["logloss"] for step in chosen["trajectory"]]
    moments = [step["seconds"] for step in chosen["trajectory"]]
    assert losses == sorted(losses, reverse=True)
    assert moments == sorted(moments)
    assert moments[-1] < chosen["search_seconds"] < 20
    assert ended.report["libraries"]["tpot"] == "1.1.0"
    assert sum(bool(PROGRESS.match(line)) for line in ended.lines) >= 2
    refitted = _python(runner, REFIT)
    assert refitted.code == 0, refitted.lines
    assert refitted.lines[-1].startswith("largest difference")


def test_finds_nothing_where_there_is_nothing_and_is_not_constant(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000, shuffled=True)
    write_fixture_inputs(runner.directory)
    ended = _good(runner.run(MODEL, {}, **SHORT))
    # cross-validation keeps away from what fits noise: hardly worse than a coin
    assert signal.coin_toss - 0.003 < ended.report["validation"]["logloss"] < signal.coin_toss + 0.01
    assert abs(ended.report["validation"]["correlation"]) < 0.1


REBUILD = """
import json
import numpy as np
from numerai_contract import operations
from sklearn.base import clone

operations.load("tpot")
from numerai_operations import _pipelines, _spaces

random = np.random.default_rng(1)
features, labels = random.normal(size=(400, 52)), random.integers(0, 2, 400)

def predicted(pipeline):
    try:
        # but for rounding, as a union lays its columns out in another order
        return clone(pipeline).fit(features, labels).predict_proba(features).round(6).tolist()
    except ValueError as error:
        return str(error)

for space in ("weak-signal", "linear-light", "linear"):
    individuals = _spaces.individuals(_spaces.search_space(space, 1_000, 52, 67), random)
    for number in range(40):
        bred = next(individuals).export_pipeline()
        pipeline = _pipelines.tidy(bred)
        if space == "linear-light" and number % 4 == 1:
            assert predicted(pipeline) == predicted(bred)
        module = {}
        exec(_pipelines.source(pipeline, "A pipeline."), module)
        assert repr(module["build"]()) == repr(pipeline)
        json.dumps(_pipelines.described(pipeline))
    print(space, len(pipeline.steps))
"""


def test_whatever_a_space_has_can_be_tidied_and_exported(runner: Runner) -> None:
    ended = _python(runner, REBUILD)
    assert ended.code == 0, ended.lines
    assert [line.split()[0] for line in ended.lines] == ["weak-signal", "linear-light", "linear"]


def test_a_run_limit_breeds_the_same_pipelines_in_the_same_order(runner: Runner) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    # beyond the first generation, whose pipelines are drawn before anything is judged
    limits = {"TIME_LIMIT": "200", "RUN_LIMIT": "12", "POPULATION": "4", "ROW_LIMIT": "1000"}
    limits["SEARCH_SPACE"] = "linear-light"
    first = _good(runner.run(MODEL, {}, **limits))
    # read now: the second run writes over what the first one left
    report, predictions = first.report, first.predictions_bytes
    assert len(report["chosen"]["candidates"]["first"]) == 12
    assert report["chosen"]["generations"] >= 1
    again = _good(runner.run(MODEL, {}, **limits))
    assert again.report["chosen"]["candidates"]["order"] == report["chosen"]["candidates"]["order"]
    assert again.predictions_bytes == predictions
    notes = " ".join(report["notes"])
    assert "using 1,000 of the 2,700 rows of the split's training part, drawn evenly from all eras" in notes


def test_gives_the_best_so_far_when_asked_to_stop(runner: Runner) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    container = runner.start(MODEL, TIME_LIMIT="600")
    # by then the first one, which takes no time, has predicted
    next(line for line in container.logs(stream=True) if re.search(rb" ([5-9]|\d\d) pipelines tried", line))
    container.stop(timeout=10)
    ended = _good(runner.ended(container, MODEL))
    assert any("stopped by SIGTERM after" in note for note in ended.report["notes"])


# runs the operation with pipelines of the test's own in place of those that TPOT would breed
BRED = """
import os, signal, sys, time
import numpy as np
from numerai_contract import operations
from numerai_contract.__main__ import main
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

operations.load("tpot")
from numerai_operations import _search

class Bad(ClassifierMixin, BaseEstimator):
    def __init__(self, how=None):
        self.how = how
    def fit(self, features, labels):
        if self.how == "hangs":
            time.sleep(600)
        elif self.how == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.how == "fills the memory":
            self.much_ = [np.ones(16 << 20) for _ in range(64)]
        self.classes_ = np.unique(labels)
        return self
    def predict_proba(self, features):
        return np.full((len(features), 2), 0.5)

class Bred:
    def __init__(self, space, population, seed, judge, breathe):
        self._judge = judge
    def evolve(self):
        self._judge({pipelines})
        self._judge([])

_search.Evolution = Bred
sys.exit(main([]))
"""


def test_stops_at_once_when_there_is_nothing_yet(runner: Runner) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    script = BRED.replace("{pipelines}", '[make_pipeline(Bad("hangs"))]')
    container = runner.start(MODEL, {"entrypoint": [*PYTHON, script]}, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if b"1 pipelines tried" in line)
    container.stop(timeout=10)
    ended = runner.ended(container, MODEL)
    assert ended.code == 75
    assert "stopped by SIGTERM after" in ended.lines[-1]
    assert "before the first pipeline had predicted anything" in ended.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()


@pytest.mark.parametrize(
    ("limit", "container", "why"),
    [("1400", "2g", "the memory was not enough"), ("16384", "700m", "something killed it")],
    ids=["its own limit", "the container's"],
)
def test_pipelines_that_hang_crash_or_fill_the_memory_do_not_end_the_search(
    runner: Runner, limit: str, container: str, why: str
) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    pipelines = """[
        *(make_pipeline(Bad(how)) for how in ("hangs", "crashes", "fills the memory", "is constant")),
        make_pipeline(LogisticRegression(C=0.01)),
    ]"""
    script = BRED.replace("{pipelines}", pipelines)
    options = {"entrypoint": [*PYTHON, script], "mem_limit": container, "memswap_limit": container}
    # two at a time, each with a part of the memory that is full before its time is up
    limits = {"TIME_LIMIT": "200", "TIME_LIMIT_PART": "8", "RUN_LIMIT": "5", "MEMORY_LIMIT": limit, "THREADS": "2"}
    chosen = _good(runner.run(MODEL, options, **limits)).report["chosen"]
    assert [tried["outcome"] for tried in chosen["candidates"]["first"]] == [
        "timed_out",
        "crashed",
        "out_of_memory",
        "crashed",
        "succeeded",
    ]
    reasons = [tried.get("why") for tried in chosen["candidates"]["first"]]
    assert reasons[0] == "it took more than 8 s"
    assert "SIGSEGV" in reasons[1]
    assert why in reasons[2]
    assert reasons[3] == "it predicts 0.500000 for every row"
    assert chosen["pipeline"] == [{"LogisticRegression": {"C": 0.01}}]


def test_passes_over_a_pipeline_that_predicts_the_same_of_every_row(runner: Runner) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    path = runner.directory / "tournament.parquet"
    tournament = pq.read_table(path)
    halves = pa.array(np.full(len(tournament), 0.5, dtype=np.float32))
    for name in ("feature1", "feature2", "feature3", "feature4"):
        tournament = tournament.set_column(tournament.column_names.index(name), name, halves)
    pq.write_table(tournament, path)
    # in the training table the first four features tell more than all of them do
    pipelines = "[make_pipeline(SelectKBest(k=1), LogisticRegression()), make_pipeline(LogisticRegression(C=1e-5))]"
    limits = {"TIME_LIMIT": "200", "RUN_LIMIT": "2", "EMBEDDINGS": "none"}
    ended = _good(_python(runner, BRED.replace("{pipelines}", pipelines), **limits))
    assert any("passed over the pipeline with logloss" in note for note in ended.report["notes"])
    assert ended.report["chosen"]["pipeline"] == [{"LogisticRegression": {"C": 1e-05}}]
    assert "C=1e-05" in _exported(ended)


def test_says_so_when_every_pipeline_is_constant(runner: Runner) -> None:
    write_tables(runner.directory, spoil=np.zeros_like)
    write_fixture_inputs(runner.directory)
    ended = runner.run(MODEL, {}, **SHORT, EMBEDDINGS="none")
    assert ended.code == 70
    assert "every row" in ended.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    write_fixture_inputs(runner.directory)
    ended = _good(runner.run(MODEL, {}, **SHORT))
    assert ended.report["chosen"]["pipelines"]["succeeded"] == 3
    assert ended.report["validation"]["logloss"] < 0.685


def test_takes_five_bins_grades_and_a_single_era(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    path = runner.directory / "training.parquet"
    training = pq.read_table(path)
    eras = pa.array(["era1"] * len(training))
    pq.write_table(training.set_column(training.column_names.index("era"), "era", eras), path)
    write_fixture_inputs(runner.directory)
    ended = _good(runner.run(MODEL, {}, **SHORT, SEARCH_SPACE="linear-light"))
    assert any("42 features (int8)" in line for line in ended.lines)
    report = ended.report
    assert (report["target"], report["chosen"]["search_space"]) == ("graded", "linear-light")
    # a classifier learns nothing from the rows at one half
    assert report["rows"]["training"] + report["rows"]["held_out"] == (training["target"].to_numpy() != 0.5).sum()
    assert "too few eras for 3 folds of eras: folds are drawn by chance" in report["notes"]
    assert report["validation"]["correlation"] > 0.1


def _many(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    return random.integers(0, 5, (rows, 780), dtype=np.int8)


def test_takes_many_features(runner: Runner) -> None:
    write_tables(runner.directory, _many)
    write_fixture_inputs(runner.directory)
    report = _good(runner.run(MODEL, {}, **SHORT)).report
    assert report["features"] == 780
    assert report["chosen"]["pipelines"]["succeeded"] == 3
    assert report["validation"]["logloss"] < 0.65


@pytest.mark.parametrize(
    ("environment", "last_line"),
    [
        ({"TIME_LIMIT": "5"}, "TIME_LIMIT is '5': TPOT needs at least 10 seconds"),
        ({"SEARCH_SPACE": "graph"}, "SEARCH_SPACE is 'graph': allowed are weak-signal, linear-light, linear"),
        ({"MEMORY_LIMIT": "600"}, "MEMORY_LIMIT is 600 MiB, and TPOT and 2,700 rows of 52 columns need about"),
    ],
)
def test_mistakes_end_in_their_code(runner: Runner, environment: dict[str, str], last_line: str) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert last_line in ended.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()
