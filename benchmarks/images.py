"""How large the model images are and how long they take to build; writes ``docs/results/images.md``.

Every image is built without the builder's cache under a separate name, which takes a few minutes:
``PYTHONPATH=plugins:. .venv/bin/python benchmarks/images.py``.
"""

from __future__ import annotations

import argparse
import os
import platform
import textwrap
import time
from pathlib import Path

import docker
from rich.console import Console

from launcher.base_images import python_image
from numerai_pipeline.models.images import BASE
from numerai_pipeline.models.registry import Registry, load_registry

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "model_images"
PAGE = ROOT / "docs" / "results" / "images.md"
MB = 1_000_000
NAME = "numerai-benchmark"


def build(engine: docker.DockerClient, folder: str, tag: str, arguments: dict[str, str]) -> float:
    """Build an image from nothing; return the seconds it took."""
    began = time.monotonic()
    engine.images.build(
        path=str(IMAGES), dockerfile=f"{folder}/Dockerfile", tag=tag, buildargs=arguments, nocache=True, forcerm=True
    )
    return time.monotonic() - began


def build_all(engine: docker.DockerClient, registry: Registry, console: Console) -> dict[str, float]:
    """Build the bases and all images; return tag → seconds."""
    seconds: dict[str, float] = {}
    for python in sorted({image.python for image in registry.images.values()}):
        tag = f"{NAME}/base-python{python}:latest"
        seconds[tag] = build(engine, BASE, tag, {"PYTHON_IMAGE": python_image(python)})
        console.print(f"{tag}: {seconds[tag]:.0f} s")
    for image in registry.images.values():
        tag = f"{NAME}/{image.name}:latest"
        seconds[tag] = build(engine, image.name, tag, {"BASE": f"{NAME}/base-python{image.python}:latest"})
        console.print(f"{tag}: {seconds[tag]:.0f} s")
    return seconds


def sizes(engine: docker.DockerClient, tags: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Size and unique size of each image, MB. What several of these images share is unique to none."""
    layers = {tag: engine.images.get(tag).attrs["RootFS"]["Layers"] for tag in tags}
    bytes_of = {tag: engine.images.get(tag).attrs["Size"] for tag in tags}
    found = {}
    for tag in tags:
        # An image's size less that of the largest one here that is wholly contained in it.
        below = [
            bytes_of[other] for other in tags if other != tag and layers[tag][: len(layers[other])] == layers[other]
        ]
        found[tag] = (bytes_of[tag] / MB, (bytes_of[tag] - max(below, default=0)) / MB)
    return found


def page(registry: Registry, seconds: dict[str, float], measured: dict[str, tuple[float, float]]) -> str:
    """Write the page."""
    total = sum(unique for _, unique in measured.values())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    introduction = (
        "Made by `benchmarks/images.py`; do not edit. *Unique* is what an image adds to its base, a base to nothing;"
        f" the sum, **{total:,.0f} MB**, is what all of them take on disk. Built one after the other without a cache in"
        f" **{sum(seconds.values()) / 60:.1f} minutes** ({machine}), the packages fetched over the network."
    )
    lines = [
        "# The model images",
        "",
        *textwrap.wrap(introduction, 120),
        "",
        "| image | size, MB | unique, MB | build, s | what is in it |",
        "|---|---:|---:|---:|---|",
    ]
    for tag, (size, unique) in measured.items():
        name = tag.removeprefix(f"{NAME}/").removesuffix(":latest")
        known = registry.images.get(name)
        description = known.description if known else "Python, uv, OpenMP, a user without rights"
        lines.append(f"| {name} | {size:,.0f} | {unique:,.0f} | {seconds[tag]:,.0f} | {description} |")
    for image in registry.images.values():
        wanted = IMAGES / image.name / "requirements.in"
        if wanted.is_file():
            names = [line.split("#")[0].strip() for line in wanted.read_text().splitlines()]
            lines += ["", f"`{image.name}` asks for: {', '.join(f'`{name}`' for name in names if name)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Build, measure, write the page, and remove what was built for it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    console = Console()
    registry = load_registry(IMAGES)
    engine = docker.from_env(timeout=3600)
    seconds = build_all(engine, registry, console)
    PAGE.write_text(page(registry, seconds, sizes(engine, seconds)))
    for tag in reversed(seconds):
        engine.images.remove(tag)
    console.print(PAGE.read_text())


if __name__ == "__main__":
    main()
