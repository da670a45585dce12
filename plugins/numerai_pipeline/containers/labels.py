"""The labels of a container: they identify its deployment, DAG, run, task and attempt. Containers have no names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOYMENT = "numerai"


def deployment_filter(deployment: str) -> str:
    """Return the engine's label filter for all containers of a deployment."""
    return f"{DEPLOYMENT}={deployment}"


@dataclass(frozen=True)
class ContainerLabels:
    """The labels of a container.

    Attributes
    ----------
    deployment : str
        Id of the deployment that the data volume belongs to (``data_volume.py``).
    dag, run, task : str
        The task instance that the container belongs to.
    attempt : int
        The task's attempt that started it, from 1 on; 0 if it has no such label.
    key : str
        Key of the result that it makes.
    """

    deployment: str
    dag: str
    run: str
    task: str
    attempt: int = 0
    key: str = ""

    @classmethod
    def from_dict(cls, labels: Mapping[str, str]) -> ContainerLabels:
        """Read the labels of a container as the engine returns them."""
        attempt = labels.get("numerai.try", "")
        return cls(
            deployment=labels.get(DEPLOYMENT, ""),
            dag=labels.get("numerai.dag", ""),
            run=labels.get("numerai.run", ""),
            task=labels.get("numerai.task", ""),
            attempt=int(attempt) if attempt.isdecimal() else 0,
            key=labels.get("numerai.key", ""),
        )

    @property
    def identity(self) -> dict[str, str]:
        """The labels that all attempts of one task instance have in common."""
        return {
            DEPLOYMENT: self.deployment,
            "numerai.dag": self.dag,
            "numerai.run": self.run,
            "numerai.task": self.task,
        }

    def to_dict(self) -> dict[str, str]:
        """Return the labels as the engine takes them."""
        return {**self.identity, "numerai.try": str(self.attempt), "numerai.key": self.key}

    def filters(self) -> list[str]:
        """Return the engine's label filters for the containers of the task in all runs."""
        return [f"{name}={self.identity[name]}" for name in (DEPLOYMENT, "numerai.task")]

    def is_same_task_instance(self, other: ContainerLabels) -> bool:
        """Whether a container is of another attempt of the same task instance."""
        return self.identity == other.identity
