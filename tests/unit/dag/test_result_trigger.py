"""The trigger of a task that waits for another run's result."""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.result_trigger import ResultTrigger
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.results import ResultInfo, ResultStore

INFO = ResultInfo("svm", "0123", "fit", "numerai-classic:1", "dataset", "1300", "dag/run")


@pytest.fixture
def store() -> ResultStore:
    return ResultStore(DataLayout(load_settings().data_dir))


def polls_until_it_fires(trigger: ResultTrigger, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> int:
    """Run a trigger as the triggerer does; return the number of polls before it fires.

    Parameters
    ----------
    trigger : ResultTrigger
        The trigger.
    monkeypatch : MonkeyPatch
        Replaces the time between polls.
    act : callable
        Called instead of waiting, with the number of polls so far.
    """
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    rebuilt = pkgutil.resolve_name(f"{module}:{name}")(**arguments)
    polls = 0

    async def sleep(_seconds: float) -> None:
        nonlocal polls
        polls += 1
        assert polls < 10, "it never fires"
        act(polls)

    async def events() -> list[object]:
        return [event.payload async for event in rebuilt.run()]

    monkeypatch.setattr("numerai_pipeline.dag.result_trigger.asyncio.sleep", sleep)
    assert asyncio.run(events()) == [{"key": "0123"}]
    return polls


def test_trigger_fires_when_the_result_is_finished(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(poll: int) -> None:
        if poll == 3:
            (tmp_path / "made").mkdir()
            (store.path("svm", "0123").parents[1]).mkdir(parents=True, exist_ok=True)
            store.publish(tmp_path / "made", INFO)

    with store.claim("svm", "0123"):
        assert polls_until_it_fires(ResultTrigger("svm", "0123"), monkeypatch, finish) == 3


def test_trigger_fires_when_the_claim_ends(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = store.claim("svm", "0123")
    claim.__enter__()

    def give_up(poll: int) -> None:
        if poll == 2:
            claim.__exit__(None, None, None)

    assert polls_until_it_fires(ResultTrigger("svm", "0123"), monkeypatch, give_up) == 2


def test_trigger_without_claim_fires_at_once(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.claim("svm", "another"):
        assert polls_until_it_fires(ResultTrigger("svm", "0123"), monkeypatch, print) == 0


@pytest.mark.parametrize("minutes", [-1, 1])
def test_trigger_fires_at_its_moment(store: ResultStore, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    until = (datetime.now(tz=UTC) + timedelta(minutes=minutes)).isoformat()
    with store.claim("svm", "0123"):
        if minutes < 0:
            assert polls_until_it_fires(ResultTrigger("svm", "0123", until), monkeypatch, print) == 0
        else:
            with pytest.raises(AssertionError, match="it never fires"):
                polls_until_it_fires(ResultTrigger("svm", "0123", until), monkeypatch, print)
