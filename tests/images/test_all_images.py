"""What every model image of the registry keeps to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import docker
import pytest
from docker.models.images import Image

from numerai_pipeline.model_registry import load_registry
from tests.samples import ROOT

pytestmark = pytest.mark.containers

REGISTRY = load_registry(ROOT / "model_images")
SECRETS = re.compile(
    r"BEGIN [A-Z ]*PRIVATE KEY|NUMERAI_(SECRET_KEY|PUBLIC_ID)=.|(password|passwd|token|secret)=\S", re.I
)
LOOK = """
id -u
for tool in cc gcc g++ clang make ld javac; do command -v $tool; done
find /tmp /var/tmp /var/lib/apt/lists /root /opt/numerai -mindepth 1 \
    -not -name '.*rc' -not -name '.profile' -not -name 'requirements*.txt' 2>/dev/null
find / -xdev \\( -path '*/.cache/*' -o -name '*.deb' -o -name '.env' -o -name 'id_rsa*' -o -name '.netrc' \\) \
    -not -path '/proc/*' 2>/dev/null
find /opt /usr/local -xdev -writable -not -type l 2>/dev/null
true
"""


@pytest.fixture(params=list(REGISTRY.images))
def image(request: pytest.FixtureRequest, engine: docker.DockerClient, model_image: Callable[[str], str]) -> Image:
    return engine.images.get(model_image(request.param))


def test_it_holds_no_tools_no_leftovers_and_no_rights(engine: docker.DockerClient, image: Image) -> None:
    assert image.attrs["Config"]["User"] == "10001:10001"
    said = engine.containers.run(image, ["-c", LOOK], entrypoint="sh", remove=True, network_mode="none")
    assert said.decode().split() == ["10001"]


def test_no_secret_is_in_its_history_or_environment(image: Image) -> None:
    told = json.dumps([*image.attrs["Config"]["Env"], *(layer["CreatedBy"] for layer in image.history())])
    assert not SECRETS.search(told)


def test_it_was_built_only_because_its_operations_work(image: Image) -> None:
    """The last thing that a build does, as the user without rights, is to try every operation: see the contract."""
    steps = [layer["CreatedBy"] for layer in image.history() if "LABEL" not in layer["CreatedBy"]]
    assert "python -m numerai_contract --self-test" in steps[0]
    assert "USER 10001:10001" in steps[1]


def test_it_proves_itself_without_rights_or_network(engine: docker.DockerClient, image: Image) -> None:
    said = engine.containers.run(
        image,
        ["--self-test"],
        remove=True,
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "rw,mode=1777"},  # noqa: S108 - the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    assert re.fullmatch(r"self-test of \w+: passed in .*", said.decode().splitlines()[-1])
