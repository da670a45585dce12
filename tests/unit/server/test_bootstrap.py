"""The start of a server: the models' pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.airflow import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable

Pools = dict[str, str]


@pytest.fixture
def ensure_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pools], list[tuple[str, ...]]]:
    """Ensure the pool where these exist; return the commands of Airflow's command line."""
    commands: list[tuple[str, ...]] = []

    def ensure(pools: Pools) -> list[tuple[str, ...]]:
        monkeypatch.setenv("NUMERAI_CORES", "8")
        monkeypatch.setattr(bootstrap, "airflow", lambda *command: commands.append(command))
        existing = [{"pool": name, "slots": slots} for name, slots in pools.items()]
        monkeypatch.setattr(bootstrap, "list_objects", lambda _: existing)
        bootstrap.ensure_pool()
        return commands

    return ensure


def test_ensure_pool_new_one_has_a_slot_for_each_core(ensure_pool: Callable[[Pools], list[tuple[str, ...]]]) -> None:
    [command] = ensure_pool({"default_pool": "128"})
    assert command[:4] == ("pools", "set", "numerai_models", "8")


def test_ensure_pool_existing_one_keeps_its_size(ensure_pool: Callable[[Pools], list[tuple[str, ...]]]) -> None:
    assert ensure_pool({"numerai_models": "16"}) == []


def test_ensure_pool_with_fewer_slots_than_cores_is_enlarged(
    ensure_pool: Callable[[Pools], list[tuple[str, ...]]],
) -> None:
    [command] = ensure_pool({"numerai_models": "2"})
    assert command[:4] == ("pools", "set", "numerai_models", "8")
