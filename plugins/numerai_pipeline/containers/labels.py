"""The labels of a container: they identify its data volume, deployment, DAG, run, task and attempt.

Containers have no names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VOLUME = "numerai"
DEPLOYMENT = "numerai.deployment"


def volume_filter(volume: str) -> str:
    """Return the engine's label filter for all containers of a data volume."""
    return f"{VOLUME}={volume}"


@dataclass(frozen=True)
class ContainerLabels:
    """The labels of a container.

    Attributes
    ----------
    volume : str
        Id of the data volume (``data_volume.py``).
    deployment : str
        Id of the Airflow deployment (``dag/deployment.py``). A container of a release without this label belongs to
        every deployment on its volume.
    dag, run, task : str
        The task instance that the container belongs to.
    attempt : int
        The task's attempt that started it, from 1 on; 0 if it has no such label.
    key : str
        Key of the result that it makes.
    """

    volume: str
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
            volume=labels.get(VOLUME, ""),
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
            VOLUME: self.volume,
            DEPLOYMENT: self.deployment,
            "numerai.dag": self.dag,
            "numerai.run": self.run,
            "numerai.task": self.task,
        }

    def to_dict(self) -> dict[str, str]:
        """Return the labels as the engine takes them."""
        return {**self.identity, "numerai.try": str(self.attempt), "numerai.key": self.key}

    def filters(self) -> list[str]:
        """Return the engine's label filters for the containers of the task in all runs, of any deployment."""
        return [f"{name}={self.identity[name]}" for name in (VOLUME, "numerai.task")]

    def is_of_deployment(self, deployment: str) -> bool:
        """Whether a deployment may touch the container."""
        return self.deployment in ("", deployment)

    def is_same_task_instance(self, other: ContainerLabels) -> bool:
        """Whether a container is of another attempt of the same task instance."""
        return (
            other.is_of_deployment(self.deployment)
            and self.identity == replace(other, deployment=self.deployment).identity
        )
