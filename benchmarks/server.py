"""Resources used by the services of a running server: ``python -m benchmarks.server [CHECKOUT]``.

Prints each service's memory (the engine's figure without the page cache), its processor seconds since its start, and
the size of its image. Run it when the server has been up for a while, and again after a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker

from launcher.paths import ROOT
from launcher.server_settings import read_settings

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


def main() -> None:
    """Print a table in Markdown."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    project = read_settings((checkout / ".env").read_text(encoding="utf-8"))["COMPOSE_PROJECT_NAME"]
    client = docker.from_env()
    cores, memory = client.info()["NCPU"], client.info()["MemTotal"]
    version = subprocess.run(
        ["docker", "version", "--format", "{{json .Server.Version}}"], capture_output=True, check=True
    )
    print(f"{cores} cores, {memory / 2**30:.0f} GiB, Docker {json.loads(version.stdout)}\n")
    print("| service | memory, MiB | peak, MiB | limit, MiB | processor, s | image, MB |")
    print("|---|---:|---:|---:|---:|---:|")
    total = 0.0
    for container in client.containers.list(filters={"label": f"{PROJECT}={project}"}):
        stats: Any = container.stats(stream=False)
        image: Any = container.image
        used = stats["memory_stats"]["usage"] - stats["memory_stats"]["stats"].get("total_inactive_file", 0)
        peak = stats["memory_stats"].get("max_usage", 0)
        total += used
        row = (
            container.labels[SERVICE],
            f"{used / 2**20:.0f}",
            f"{peak / 2**20:.0f}" if peak else "",
            f"{stats['memory_stats']['limit'] / 2**20:.0f}",
            f"{stats['cpu_stats']['cpu_usage']['total_usage'] / 1e9:.0f}",
            f"{image.attrs['Size'] / 1e6:.0f}",
        )
        print(f"| {' | '.join(row)} |")
    print(f"| all | {total / 2**20:.0f} | | | | |")


if __name__ == "__main__":
    main()
