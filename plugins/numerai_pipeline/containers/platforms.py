"""Selects the platform that runs containers: the only module that reads the setting ``engine``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numerai_pipeline.containers.backend import Backend, Connect
    from numerai_pipeline.core.settings import Settings


def runner_backend(settings: Settings, connect: Connect) -> Backend:
    """Return the platform that starts the model containers."""
    if settings.engine == "swarm":
        from numerai_pipeline.containers.swarm_backend import SwarmBackend

        return SwarmBackend(connect, settings)
    from numerai_pipeline.containers.engine_backend import EngineBackend

    return EngineBackend(connect, settings)


def cleanup_backends(settings: Settings, connect: Connect) -> list[Backend]:
    """Return all platforms on which this deployment may have containers."""
    from numerai_pipeline.containers.engine_backend import EngineBackend

    chosen = runner_backend(settings, connect)
    return [chosen] if isinstance(chosen, EngineBackend) else [EngineBackend(connect, settings), chosen]
