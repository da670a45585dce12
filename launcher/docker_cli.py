"""The Docker engine, used through its command line, which handles contexts, builders and the engine's address."""

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
    """The engine's operations that the launcher needs."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands

    def server_version(self) -> str:
        """Give the version of the reachable engine.

        Raises
        ------
        CommandError
            When no engine is reachable.
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

        A builder in a separate container has no access to the engine's images, on which ours are based.
        """
        with contextlib.suppress(CommandError, OSError):
            return bool(
                re.search(r"^Driver:\s+docker$", self.commands.run(["docker", "buildx", "inspect"]), re.MULTILINE)
            )
        return False

    @property
    def builder_environment(self) -> dict[str, str]:
        """Environment that makes `docker build` use an available builder: without buildx, the engine's own."""
        return {"DOCKER_BUILDKIT": "1" if self.has_buildx else "0"}

    def has_image(self, reference: str) -> bool:
        """Whether the engine has an image."""
        return self.commands.succeeds(["docker", "image", "inspect", reference])

    def images(self, **labels: str) -> list[str]:
        """List the images that have these labels; an empty value matches any."""
        filters = _filters(labels)
        listing = self.commands.run(
            ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", *filters], timeout=ANSWER_SECONDS
        )
        return [line for line in listing.split() if "<none>" not in line]

    def containers(self, **labels: str) -> list[str]:
        """List the ids of all containers that have these labels; an empty value matches any."""
        return self.commands.run(
            ["docker", "ps", "--quiet", "--all", *_filters(labels)], timeout=ANSWER_SECONDS
        ).split()

    def running_containers(self) -> list[str]:
        """List the ids of all running containers of the engine."""
        return self.commands.run(["docker", "ps", "--quiet"], timeout=ANSWER_SECONDS).split()

    def remove_containers(self, **labels: str) -> int:
        """Stop and remove the containers that have these labels; returns their number."""
        found = self.containers(**labels)
        if found:
            # check=False: a container that is removed in the same moment makes the command fail
            self.commands.run(["docker", "rm", "--force", "--volumes", *found], timeout=ANSWER_SECONDS, check=False)
        return len(found)


def _filters(labels: Mapping[str, str]) -> list[str]:
    arguments: list[str] = []
    for name, value in labels.items():
        # a keyword argument cannot have a dot in its name: numerai_run stands for the label numerai.run
        label = name.replace("_", ".")
        arguments += ["--filter", f"label={label}={value}" if value else f"label={label}"]
    return arguments
