"""The address of the Docker engine and the certificates for it, from the variables that Docker's own client reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import APIClient

DEFAULT_URL = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class EngineConnection:
    """Where the Docker engine is, and how to connect to it.

    Attributes
    ----------
    url : str
        ``DOCKER_HOST``, or the local socket.
    certificates : Path or None
        ``DOCKER_CERT_PATH``, with ``ca.pem``, ``cert.pem`` and ``key.pem``; ``~/.docker`` if only
        ``DOCKER_TLS_VERIFY`` is set; None without TLS.
    verify : bool
        Whether the engine's certificate must be signed by ``ca.pem``: ``DOCKER_TLS_VERIFY`` is set and not empty.
    """

    url: str = DEFAULT_URL
    certificates: Path | None = None
    verify: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> EngineConnection:
        """Read ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``."""
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
        path = environment.get("DOCKER_CERT_PATH") or (Path.home() / ".docker" if verify else None)
        return cls(environment.get("DOCKER_HOST") or DEFAULT_URL, Path(path) if path else None, verify)

    def certificate_file(self, name: str) -> str | None:
        """Return the path of ``ca.pem``, ``cert.pem`` or ``key.pem``; None without TLS."""
        return None if self.certificates is None else str(self.certificates / name)

    def client(self) -> APIClient:
        """Connect without Airflow and without a login to a registry.

        Raises
        ------
        docker.errors.DockerException
            When the engine is unreachable.
        """
        from docker import APIClient, TLSConfig

        if self.certificates is None:
            return APIClient(self.url)
        certificate = (str(self.certificates / "cert.pem"), str(self.certificates / "key.pem"))
        tls = TLSConfig(certificate, self.certificate_file("ca.pem"), verify=self.verify)
        return APIClient(self.url.replace("tcp://", "https://", 1), tls=tls)
