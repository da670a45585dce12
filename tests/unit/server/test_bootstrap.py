"""The preparation of a server before Airflow starts: the models' pool."""

from __future__ import annotations

import pytest

from server.airflow import bootstrap
from tests.samples import ROOT


@pytest.mark.parametrize(
    ("existing", "wanted", "size"),
    [
        ({}, "5", "5"),
        # a task that needs more slots than the pool has would wait forever
        ({}, "1", "2"),
        ({"numerai_models": 1}, "5", "2"),
        ({"numerai_models": 3}, "5", None),
    ],
)
def test_ensure_pool_is_never_smaller_than_the_widest_task(
    monkeypatch: pytest.MonkeyPatch, existing: dict[str, int], wanted: str, size: str | None
) -> None:
    commands: list[tuple[str, ...]] = []
    pools = [{"pool": name, "slots": str(slots)} for name, slots in {"default_pool": 128, **existing}.items()]
    monkeypatch.setattr(bootstrap, "IMAGES", ROOT / "model_images")
    monkeypatch.setattr(bootstrap, "list_objects", lambda _kind: pools)
    monkeypatch.setattr(bootstrap, "airflow", lambda *command: commands.append(command))
    monkeypatch.setenv("MODEL_SLOTS", wanted)
    bootstrap.ensure_pool()
    assert [command[3] for command in commands] == ([size] if size else [])
