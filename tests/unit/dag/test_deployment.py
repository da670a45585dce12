"""The id of the Airflow deployment, with Airflow's variables in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from numerai_pipeline.dag import deployment
from numerai_pipeline.dag.deployment import VARIABLE, deployment_id


class Variables:
    """Airflow's variables, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: str) -> str:
        return self.values.get(key, default)

    def set(self, key: str, value: str, description: str) -> None:
        assert description
        self.values[key] = value


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    return another_airflow(monkeypatch)


def another_airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    variables = Variables()
    monkeypatch.setattr(deployment, "Variable", variables)
    return variables


def test_deployment_id_is_kept_by_airflow(airflow: Variables, tmp_path: Path) -> None:
    found = deployment_id(tmp_path)
    assert airflow.values == {VARIABLE: found}
    # also with another data volume
    assert deployment_id(tmp_path / "moved") == found


def test_deployment_id_concurrent_calls_return_one_id(airflow: Variables, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: deployment_id(tmp_path), range(16)))
    assert ids == set(airflow.values.values())


def test_deployment_id_of_two_airflows_on_one_volume_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = set()
    for _ in range(2):
        another_airflow(monkeypatch)
        ids.add(deployment_id(tmp_path))
    assert len(ids) == 2
