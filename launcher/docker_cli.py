"""The Docker engine by way of its command line, which knows contexts, builders and where the engine is."""

from __future__ import annotations

import contextlib
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING

from launcher.processes import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.processes import Commands

ANSWER_SECONDS = 15.0


class Docker:
    """What the launcher asks of the engine."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands

    def server_version(self) -> str:
        """Version of the engine that answers.

        Raises
        ------
        CommandError
            When none does.
        FileNotFoundError
            When there is no docker command.
        """
        answer = self.commands.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=ANSWER_SECONDS)
        return answer.strip().splitlines()[-1]

    def endpoint(self) -> str | None:
        """Address of the engine in the current context of the command line, such as ``unix:///var/run/docker.sock``."""
        with contextlib.suppress(CommandError, OSError, ValueError, LookupError, TypeError):
            contexts = json.loads(self.commands.run(["docker", "context", "inspect"], timeout=ANSWER_SECONDS))
            return str(contexts[0]["Endpoints"]["docker"]["Host"]) or None
        return None

    @cached_property
    def has_buildx(self) -> bool:
        """Whether BuildKit can be used: the command line has its plugin, and it builds in the engine itself.

        A builder in a container of its own does not see the images of the engine, and ours stand on one another.
        """
        with contextlib.suppress(CommandError, OSError):
            return bool(
                re.search(r"^Driver:\s+docker$", self.commands.run(["docker", "buildx", "inspect"]), re.MULTILINE)
            )
        return False

    @property
    def builder_environment(self) -> dict[str, str]:
        """What makes `docker build` use a builder that is there: without buildx, the engine's own."""
        return {"DOCKER_BUILDKIT": "1" if self.has_buildx else "0"}

    def has_image(self, reference: str) -> bool:
        """Whether the engine has an image."""
        return self.commands.succeeds(["docker", "image", "inspect", reference])

    def images(self, **labels: str) -> list[str]:
        """List the images that carry these labels; an empty value stands for any."""
        filters = _filters(labels)
        listing = self.commands.run(
            ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", *filters], timeout=ANSWER_SECONDS
        )
        return [line for line in listing.split() if "<none>" not in line]

    def containers(self, **labels: str) -> list[str]:
        """List the ids of all containers that carry these labels; an empty value stands for any."""
        return self.commands.run(
            ["docker", "ps", "--quiet", "--all", *_filters(labels)], timeout=ANSWER_SECONDS
        ).split()

    def running_containers(self) -> list[str]:
        """List the ids of the containers that run, whosever they are."""
        return self.commands.run(["docker", "ps", "--quiet"], timeout=ANSWER_SECONDS).split()

    def remove_containers(self, **labels: str) -> int:
        """Stop and remove the containers that carry these labels; returns how many there were."""
        found = self.containers(**labels)
        if found:
            # a container that removes itself in this very moment makes the command fail, and is gone all the same
            self.commands.run(["docker", "rm", "--force", "--volumes", *found], timeout=ANSWER_SECONDS, check=False)
        return len(found)


def _filters(labels: Mapping[str, str]) -> list[str]:
    words: list[str] = []
    for name, value in labels.items():
        # a keyword argument cannot have a dot in its name: numerai_run stands for the label numerai.run
        label = name.replace("_", ".")
        words += ["--filter", f"label={label}={value}" if value else f"label={label}"]
    return words
