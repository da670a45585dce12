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
    inputs : str
        Fingerprint of its image, environment and inputs.
    """

    deployment: str
    dag: str
    run: str
    task: str
    attempt: int = 0
    inputs: str = ""

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
            inputs=labels.get("numerai.inputs", ""),
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
        return {**self.identity, "numerai.try": str(self.attempt), "numerai.inputs": self.inputs}

    def filters(self) -> list[str]:
        """Return the engine's label filters for the containers of all attempts of the task instance."""
        return [f"{name}={value}" for name, value in self.identity.items()]
