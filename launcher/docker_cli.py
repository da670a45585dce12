"""The Docker engine, used through its command line, which handles contexts, builders and the engine's address."""

from __future__ import annotations

import contextlib
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING

from launcher.errors import LauncherError
from launcher.processes import CommandError, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.processes import Commands

ANSWER_SECONDS = 15.0
BUILD_SECONDS = 3600.0


class Docker:
    """The engine's operations that the launcher needs."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands

    def _answer(self, *command: str, check: bool = True) -> str:
        return self.commands.run(["docker", *command], timeout=ANSWER_SECONDS, check=check).strip()

    def server_version(self) -> str:
        """Give the version of the reachable engine; CommandError without one, FileNotFoundError without docker."""
        return self._answer("version", "--format", "{{.Server.Version}}").splitlines()[-1]

    def endpoint(self) -> str | None:
        """Address of the engine in the current context of the command line, such as ``unix:///var/run/docker.sock``."""
        with contextlib.suppress(CommandError, OSError, ValueError, LookupError, TypeError):
            return str(json.loads(self._answer("context", "inspect"))[0]["Endpoints"]["docker"]["Host"]) or None
        return None

    @cached_property
    def builder_environment(self) -> dict[str, str]:
        """Environment that makes `docker build` use BuildKit, where its plugin builds in the engine itself.

        A builder in a separate container has no access to the engine's images, on which ours are based.
        """
        with contextlib.suppress(CommandError, OSError):
            if re.search(r"^Driver:\s+docker$", self.commands.run(["docker", "buildx", "inspect"]), re.MULTILINE):
                return {"DOCKER_BUILDKIT": "1"}
        return {"DOCKER_BUILDKIT": "0"}

    def build(
        self,
        name: str,
        reference: str,
        context: Path,
        dockerfile: Path,
        arguments: Mapping[str, str],
        log: Path,
        options: Sequence[str] = (),
    ) -> None:
        """Build an image; the error has the end of the log, which is replaced."""
        log.unlink(missing_ok=True)
        given = [word for argument, value in arguments.items() for word in ("--build-arg", f"{argument}={value}")]
        target = ["--tag", reference, "--file", str(dockerfile), str(context)]
        try:
            command = ["docker", "build", "--force-rm", *options, *given, *target]
            self.commands.run(command, timeout=BUILD_SECONDS, log=log, env=self.builder_environment)
        except CommandError as error:
            raise LauncherError(
                f"the image {name} could not be built",
                tail(error.output),
                f"The full log: {log}",
                "Remove the cause (often the network or a full disk) and try again; finished images are kept.",
            ) from None

    def has_image(self, reference: str) -> bool:
        """Whether the engine has an image."""
        return self.commands.succeeds(["docker", "image", "inspect", reference])

    def label_of_image(self, reference: str, label: str) -> str:
        """Give the value of an image's label; empty without the image or the label."""
        with contextlib.suppress(CommandError):
            form = f'{{{{index .Config.Labels "{label}"}}}}'
            return self._answer("image", "inspect", "--format", form, reference)
        return ""

    def images(self, label: str) -> list[str]:
        """List the images that have a label."""
        listing = self._answer("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"label={label}")
        return [line for line in listing.split() if "<none>" not in line]

    def containers(self, *labels: str) -> list[str]:
        """List the ids of all containers that have these labels, such as ``numerai`` or ``numerai.run=by_hand``."""
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self._answer("ps", "--quiet", "--all", *filters).split()

    def running_containers(self) -> list[str]:
        """List the ids of all running containers of the engine."""
        return self._answer("ps", "--quiet").split()

    def remove_containers(self, *labels: str) -> int:
        """Stop and remove the containers that have these labels; returns their number."""
        found = self.containers(*labels)
        if found:
            # check=False: a container that is removed in the same moment makes the command fail
            self._answer("rm", "--force", "--volumes", *found, check=False)
        return len(found)
