"""The tpot image: exported pipelines, reproducible searches, failing pipelines, and stop requests."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from numerai_contract.self_test import write_fixture_inputs
from tests.images.conftest import (
    THREE_TABLES,
    FinishedRun,
    Runner,
    assert_succeeded,
    change_columns,
    five_bins,
    graded,
    write_tables,
)
from tests.images.models import FEW_PIPELINES, check_tpot, exported_pipeline
from tests.images.search_stops import assert_delivered, assert_stopped_in_search
from tests.images.signals import write_known_signal
from tests.images.split_data import write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "tpot"
MODEL = "tpot"
PYTHON = ("python", "-W", "ignore", "-c")


def _assert_succeeded(finished: FinishedRun) -> FinishedRun:
    check_tpot(assert_succeeded(finished))
    return finished


def _python(runner: Runner, script: str, **environment: str) -> FinishedRun:
    """Run a script in the image, with the environment of an operation."""
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
# one thread, as in the search: another summation order changes the results of some learners
threadpool_limits(1)
pipeline.fit(tables.training_features(), tables.training_labels)
with open("/data/predictions/tpot.csv", newline="") as stream:
    written = np.array([float(row["prediction"]) for row in csv.DictReader(stream)])
for positions, block in tables.source.batches(task.testing):
    difference = np.abs(pipeline.predict_proba(block)[:, 1] - written[positions]).max()
    print(f"largest difference {difference:.1e}")
    assert difference < 1e-6
"""


def test_tpot_exported_pipeline_refits_to_the_same_predictions(runner: Runner) -> None:
    write_known_signal(runner.directory, 10_000)
    write_fixture_inputs(runner.directory, "tournament")
    _assert_succeeded(runner.run(MODEL, {}, **FEW_PIPELINES))
    refitted = _python(runner, REFIT)
    assert refitted.code == 0, refitted.lines
    assert refitted.lines[-1].startswith("largest difference")


def test_tpot_one_era_uses_random_folds(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    change_columns(runner.directory / "training.parquet", era=["era1"] * 3_000)
    write_fixture_inputs(runner.directory, "tournament")
    finished = _assert_succeeded(runner.run(MODEL, {}, **FEW_PIPELINES, SEARCH_SPACE="linear-light"))
    assert "too few eras for 3 folds of eras: using random folds" in finished.report["notes"]
    assert finished.report["validation"]["correlation"] > 0.1


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
        # rounded, since a union has its columns in another order
        return clone(pipeline).fit(features, labels).predict_proba(features).round(6).tolist()
    except ValueError as error:
        return str(error)

for space in ("weak-signal", "linear-light", "linear"):
    individuals = _spaces.individuals(_spaces.search_space(space, 1_000, 52, 67), random)
    for number in range(40):
        original = next(individuals).export_pipeline()
        pipeline = _pipelines.tidy(original)
        if space == "linear-light" and number % 4 == 1:
            assert predicted(pipeline) == predicted(original)
        module = {}
        exec(_pipelines.source(pipeline, "A pipeline."), module)
        assert repr(module["build"]()) == repr(pipeline)
        json.dumps(_pipelines.described(pipeline))
    print(space, len(pipeline.steps))
"""


def test_exported_pipeline_of_every_search_space_is_rebuilt(runner: Runner) -> None:
    finished = _python(runner, REBUILD)
    assert finished.code == 0, finished.lines
    assert [line.split()[0] for line in finished.lines] == ["weak-signal", "linear-light", "linear"]


def test_tpot_run_limit_tries_the_same_pipelines(runner: Runner) -> None:
    write_split_tables(runner.directory)
    # more than the first generation, whose pipelines are drawn before the first evaluation
    limits = {"TIME_LIMIT": "200", "RUN_LIMIT": "12", "POPULATION": "4", "ROW_LIMIT": "1000"}
    limits["SEARCH_SPACE"] = "linear-light"
    first = _assert_succeeded(runner.run(MODEL, {}, **limits))
    report, predictions = first.report, first.predictions_bytes
    assert len(report["chosen"]["candidates"]["first"]) == 12
    assert report["chosen"]["generations"] >= 1
    again = _assert_succeeded(runner.run(MODEL, {}, **limits))
    assert again.report["chosen"]["candidates"]["order"] == report["chosen"]["candidates"]["order"]
    assert again.predictions_bytes == predictions
    notes = " ".join(report["notes"])
    assert "using 1,000 of the 2,700 rows of the split's training part, drawn evenly from all eras" in notes


def test_tpot_stop_request_delivers_the_best_so_far(runner: Runner) -> None:
    write_split_tables(runner.directory)
    container = runner.start(MODEL, {}, TIME_LIMIT="600", **THREE_TABLES)
    # by then the first pipeline, which is fast, has predicted
    next(line for line in container.logs(stream=True) if re.search(rb" ([5-9]|\d\d) pipelines tried", line))
    container.stop(timeout=10)
    finished = assert_stopped_in_search(runner.wait(container, MODEL))
    check_tpot(finished)
    assert (runner.directory / "model/tpot_pipeline.py").read_text() == exported_pipeline(finished)


# runs the operation with the test's pipelines instead of TPOT's evolution
FIXED_PIPELINES = """
import os, signal, sys, time
import numpy as np
from numerai_contract import operations
from numerai_contract.__main__ import main
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

operations.load("tpot")
from numerai_operations import _search_runner

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

class Late(LogisticRegression):
    def fit(self, features, labels):
        if len(labels) > 3_000:  # only in the final fit
            {late}
        return super().fit(features, labels)

class FixedEvolution:
    def __init__(self, space, population, seed, evaluate, check):
        self._evaluate = evaluate
    def evolve(self):
        self._evaluate({pipelines})
        self._evaluate([])

_search_runner.Evolution = FixedEvolution
sys.exit(main([]))
"""


def _fixed(pipelines: str, late: str = "pass") -> str:
    return FIXED_PIPELINES.replace("{pipelines}", pipelines).replace("{late}", late)


@pytest.mark.parametrize("is_stopped", [False, True], ids=["failed", "stopped"])
def test_tpot_failed_final_fit_uses_the_first(runner: Runner, is_stopped: bool) -> None:
    write_split_tables(runner.directory)
    late = "time.sleep(600)" if is_stopped else "raise ValueError('too many rows')"
    script = _fixed("[make_pipeline(Late())]", late)
    container = runner.start(MODEL, {"entrypoint": [*PYTHON, script]}, TIME_LIMIT="600", RUN_LIMIT="1", **THREE_TABLES)
    if is_stopped:
        next(line for line in container.logs(stream=True) if b"fitting the best pipeline on 3,800 rows" in line)
        container.stop(timeout=10)
    finished = assert_delivered(runner.wait(container, MODEL))
    assert finished.report["final"]["chosen"] == {"refitted": False}
    reason = "stopped by SIGTERM" if is_stopped else "too many rows"
    assert finished.report["notes"][-1] == f"no final fit, using the first: {reason}"


def test_tpot_early_stop_request_exits_with_75(runner: Runner) -> None:
    write_split_tables(runner.directory)
    script = _fixed('[make_pipeline(Bad("hangs"))]')
    container = runner.start(MODEL, {"entrypoint": [*PYTHON, script]}, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if b"1 pipelines tried" in line)
    container.stop(timeout=10)
    finished = runner.wait(container, MODEL)
    assert finished.code == 75
    assert "stopped by SIGTERM after" in finished.lines[-1]
    assert "before the first pipeline had predicted anything" in finished.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()


@pytest.mark.parametrize(
    ("limit", "container", "why"),
    [("1400", "2g", "the memory was not enough"), ("16384", "700m", "it was killed")],
    ids=["its own limit", "the container's"],
)
def test_tpot_failing_pipelines_do_not_end_the_search(runner: Runner, limit: str, container: str, why: str) -> None:
    write_split_tables(runner.directory)
    pipelines = """[
        *(make_pipeline(Bad(how)) for how in ("hangs", "crashes", "fills the memory", "is constant")),
        make_pipeline(LogisticRegression(C=0.01)),
    ]"""
    script = _fixed(pipelines)
    options = {"entrypoint": [*PYTHON, script], "mem_limit": container, "memswap_limit": container}
    # two at a time, each with a part of the memory that is full before its time limit
    limits = {"TIME_LIMIT": "200", "TIME_LIMIT_PART": "8", "RUN_LIMIT": "5", "MEMORY_LIMIT": limit, "THREADS": "2"}
    chosen = _assert_succeeded(runner.run(MODEL, options, **limits)).report["chosen"]
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


def test_tpot_pipeline_with_constant_predictions_is_rejected(runner: Runner) -> None:
    write_split_tables(runner.directory)
    path = runner.directory / "tournament.parquet"
    halves = pa.array(np.full(1_000, 0.5, dtype=np.float32))
    change_columns(path, feature1=halves, feature2=halves, feature3=halves, feature4=halves)
    # in the training table the best single feature is among the first four
    pipelines = "[make_pipeline(SelectKBest(k=1), LogisticRegression()), make_pipeline(LogisticRegression(C=1e-5))]"
    limits = {"TIME_LIMIT": "200", "RUN_LIMIT": "2", "EMBEDDINGS": "none"}
    finished = _assert_succeeded(_python(runner, _fixed(pipelines), **limits))
    assert any("rejected the pipeline with logloss" in note for note in finished.report["notes"])
    assert finished.report["chosen"]["pipeline"] == [{"LogisticRegression": {"C": 1e-05}}]
    assert "C=1e-05" in exported_pipeline(finished)


def test_tpot_only_constant_pipelines_exit_with_69(runner: Runner) -> None:
    write_split_tables(runner.directory, modify=np.zeros_like)
    finished = runner.run(MODEL, {}, **FEW_PIPELINES, EMBEDDINGS="none")
    assert finished.code == 69
    assert "every row" in finished.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()
