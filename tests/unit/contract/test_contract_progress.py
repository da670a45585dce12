"""Progress: the lines in the log."""

from __future__ import annotations

import io

import pytest

from numerai_contract.progress import Progress, duration


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (150, "2 min 30 s"),
        (3_900, "1 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_duration_seconds_are_formatted(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_progress_frequent_updates_are_throttled() -> None:
    clock, stream = _Clock(), io.StringIO()
    progress = Progress(stream, clock)
    with progress.step("growing trees"):
        clock.now = 1
        assert not progress.update(0.01, "tree 3 of 300")  # too soon after the last line
        clock.now = 20
        assert progress.update(1 / 3, "tree 100 of 300, held-out logloss 0.6921")
        clock.now = 22
        assert not progress.update(0.4, "tree 120 of 300")  # too soon again
        clock.now = 60
        assert progress.update(1.0, "tree 300 of 300")
    assert stream.getvalue().splitlines() == [
        "growing trees …",
        "[ 33 %] tree 100 of 300, held-out logloss 0.6921, about 40 s left",
        "[100 %] tree 300 of 300",
        "growing trees: done in 1 min 00 s",
    ]


def test_progress_second_step_estimates_from_its_start() -> None:
    clock, stream = _Clock(), io.StringIO()
    progress = Progress(stream, clock)
    with progress.step("fitting"):
        clock.now = 100
    with progress.step("predicting"):
        clock.now = 110
        progress.update(0.5, "row 5 of 10")
    assert "[ 50 %] row 5 of 10, about 10 s left" in stream.getvalue()


def test_progress_failing_step_is_not_logged_as_done() -> None:
    stream = io.StringIO()
    progress = Progress(stream, _Clock())
    with pytest.raises(KeyError), progress.step("fitting"):
        raise KeyError
    assert stream.getvalue() == "fitting …\n"
