"""Runs in a container as Airflow would: finds the data volume on the host and shares a file with a sibling."""

import docker

from numerai_pipeline.containers.data_volume import find_data_volume
from numerai_pipeline.core.settings import load_settings

settings = load_settings()
engine = docker.from_env()
volume = find_data_volume(settings, engine.api)
(settings.data_dir / "message").write_text("seen by both")
sibling = engine.containers.run(
    "python:3.12-slim-bookworm", ["cat", "/data/message"], volumes=[f"{volume.on_host}:/data:ro"], detach=True
)
sibling.wait()
print(volume.on_host)
print(sibling.logs().decode())
sibling.remove()
