"""The auto_sklearn image: how its search does, what it tells of it, and how it ends."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.images.conftest import Ended, Runner, five_bins, good, graded, spoilt, write_tables
from tests.images.signals import write_known_signal

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "auto_sklearn"
MODEL = "auto_sklearn"
# the cheap ones of the first tries, for a test that is not about how good the model is
SHORT = {"TIME_LIMIT": "100", "RUN_LIMIT": "3"}
PROGRESS = re.compile(r"\[ *\d+ %\] \d+ of 60 s, \d+ models tried, best held-out logloss (none yet|0\.\d{4})")


def _good(ended: Ended) -> Ended:
    """Check what holds for every search that ends well."""
    good(ended)
    chosen = ended.report["chosen"]
    assert sum(member["weight"] for member in chosen["ensemble"]["members"]) == pytest.approx(1, abs=1e-4)
    runs = chosen["runs"]
    endings = ("succeeded", "timed_out", "out_of_memory", "crashed")
    assert runs["tried"] == sum(runs[ending] for ending in endings) == len(chosen["candidates"]["first"])
    return ended


def test_a_minute_finds_what_can_be_learned_and_tells_of_it(runner: Runner) -> None:
    signal = write_known_signal(runner.directory)
    ended = _good(runner.run(MODEL, TIME_LIMIT="60", THREADS="2", INPUTS="0f3a"))
    validation, chosen = ended.report["validation"], ended.report["chosen"]
    # below a coin's by 0.039 to 0.043 in four runs on two cores, by 0.021 where others left it little of them; the
    # linear part alone is worth 0.018
    assert validation["logloss"] < signal.linear
    assert validation["consistency"] == 1
    assert validation["correlation"] > 0.15
    assert ended.report["rows"] == {"training": 36_000, "held_out": 10_000, "tournament": 10_100}
    assert (chosen["task"], chosen["metric"], chosen["embargo_eras"]) == ("classifier", "log_loss", 8)
    assert (chosen["seconds_per_fit"], chosen["at_a_time"]) == (15, 2)
    assert chosen["runs"]["succeeded"] >= 3
    losses = [step["held_out_loss"] for step in chosen["trajectory"]]
    moments = [step["seconds"] for step in chosen["trajectory"]]
    assert losses == sorted(losses, reverse=True)
    assert moments == sorted(moments)
    assert moments[-1] < chosen["search_seconds"] < 60
    # drawn to be better on the held-out rows than its best member; the constant among them is no candidate
    assert chosen["ensemble"]["held_out_loss"] <= losses[-1] + 1e-6
    for member in chosen["ensemble"]["members"]:
        if member["learner"] != "constant":
            assert member["configuration"]["classifier:__choice__"] == member["learner"]
    assert {"auto-sklearn", "scikit-learn", "smac"} <= ended.report["libraries"].keys()
    assert ended.report["libraries"]["auto-sklearn"] == "0.15.0"
    assert sum(bool(PROGRESS.match(line)) for line in ended.lines) >= 5


def test_finds_nothing_where_there_is_nothing_and_is_not_constant(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000, shuffled=True)
    ended = _good(runner.run(MODEL, {}, **SHORT))
    # the constant has its part in the ensemble: no worse than a coin by more than luck
    assert signal.coin_toss - 0.003 < ended.report["validation"]["logloss"] < signal.coin_toss + 0.01
    assert abs(ended.report["validation"]["correlation"]) < 0.1


def test_a_run_limit_tries_the_same_candidates_in_the_same_order(runner: Runner) -> None:
    write_tables(runner.directory)
    # beyond the first tries, which are always the same: one that the optimizer chose
    limits = {"TIME_LIMIT": "100", "RUN_LIMIT": "7", "ROW_LIMIT": "1000"}
    first, again = (_good(runner.run(MODEL, {}, **limits)) for _ in range(2))
    tried = first.report["chosen"]["candidates"]
    assert len(tried["first"]) == 7
    assert again.report["chosen"]["candidates"]["order"] == tried["order"]
    assert again.predictions_bytes == first.predictions_bytes
    assert "learning from 1,000 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)" in first.report["notes"]
    other = _good(runner.run(MODEL, {}, **limits, SEED="1")).report["chosen"]["candidates"]
    assert other["order"] != tried["order"]


def test_gives_the_best_so_far_when_asked_to_stop(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start(MODEL, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if re.search(rb" [3-9] models tried", line))
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    ended = _good(runner.ended(container, MODEL))
    assert any("stopped by SIGTERM after" in note for note in ended.report["notes"])


def test_stops_at_once_when_there_is_nothing_yet(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start(MODEL, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if b"searching for" in line)
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    ended = runner.ended(container, MODEL)
    assert ended.code == 75
    assert "stopped by SIGTERM" in ended.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()


def test_a_candidate_that_wants_too_much_memory_does_not_end_the_search(runner: Runner) -> None:
    write_known_signal(runner.directory)
    runs = _good(runner.run(MODEL, {}, **SHORT, MEMORY_LIMIT_PART="500")).report["chosen"]["runs"]
    assert runs["out_of_memory"] >= 1
    assert runs["succeeded"] >= 1
    assert runs["tried"] == 3


def test_too_little_memory_for_any_says_so(runner: Runner) -> None:
    write_tables(runner.directory)
    ended = runner.run(MODEL, {}, **SHORT, MEMORY_LIMIT="700")
    assert ended.code == 64
    assert "MEMORY_LIMIT is '700'" in ended.lines[-1]


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    ended = _good(runner.run(MODEL, {}, **SHORT))
    assert ended.report["chosen"]["runs"]["succeeded"] == 3
    assert ended.report["validation"]["logloss"] < 0.685


def test_takes_five_bins_and_grades(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    ended = _good(runner.run(MODEL, {}, **SHORT))
    assert "42 features (int8)" in ended.lines[0]
    report = ended.report
    assert (report["target"], report["chosen"]["task"]) == ("graded", "regressor")
    assert report["chosen"]["metric"] == "mean_squared_error"
    # a regressor learns from the rows at one half as well
    assert report["rows"] == {"training": 42 * 50, "held_out": 12 * 50, "tournament": 1_000}
    assert report["validation"]["correlation"] > 0.1


def _many(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    return random.integers(0, 5, (rows, 780), dtype=np.int8)


def test_takes_many_features(runner: Runner) -> None:
    write_tables(runner.directory, _many)
    report = _good(runner.run(MODEL, {}, **SHORT)).report
    assert report["features"] == 780
    assert report["chosen"]["runs"]["succeeded"] == 3


@pytest.mark.parametrize(
    ("environment", "last_line"),
    [
        ({"TIME_LIMIT": "5"}, "TIME_LIMIT is '5': auto-sklearn needs at least 20 seconds"),
        ({"RUN_LIMIT": "0"}, "RUN_LIMIT is '0': allowed is a whole number from 1 to 1,000,000"),
    ],
)
def test_mistakes_end_in_their_code(runner: Runner, environment: dict[str, str], last_line: str) -> None:
    write_tables(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert last_line in ended.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()
