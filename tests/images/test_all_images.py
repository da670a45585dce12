"""The requirements of every model image."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import docker
import pytest
from docker.models.images import Image

from numerai_pipeline.models.registry import load_registry
from tests.samples import ROOT

pytestmark = pytest.mark.containers

REGISTRY = load_registry(ROOT / "model_images")
SECRETS = re.compile(
    r"BEGIN [A-Z ]*PRIVATE KEY|NUMERAI_(SECRET_KEY|PUBLIC_ID)=.|(password|passwd|token|secret)=\S", re.I
)
LIST_LEFTOVERS = """
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


def test_image_has_no_build_tools_leftovers_or_privileges(engine: docker.DockerClient, image: Image) -> None:
    assert image.attrs["Config"]["User"] == "10001:10001"
    output = engine.containers.run(image, ["-c", LIST_LEFTOVERS], entrypoint="sh", remove=True, network_mode="none")
    assert output.decode().split() == ["10001"]


def test_image_has_no_secret_in_history_or_environment(image: Image) -> None:
    metadata = json.dumps([*image.attrs["Config"]["Env"], *(layer["CreatedBy"] for layer in image.history())])
    assert not SECRETS.search(metadata)


def test_image_build_ends_with_the_self_test(image: Image) -> None:
    """The last step of a build, as the unprivileged user, is the self-test of every operation: see the contract."""
    steps = [layer["CreatedBy"] for layer in image.history() if "LABEL" not in layer["CreatedBy"]]
    assert "python -m numerai_contract --self-test" in steps[0]
    assert "USER 10001:10001" in steps[1]


def test_image_self_test_passes_without_network_or_privileges(engine: docker.DockerClient, image: Image) -> None:
    output = engine.containers.run(
        image,
        ["--self-test"],
        remove=True,
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "rw,mode=1777"},  # noqa: S108 (the container's /tmp)
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    assert re.fullmatch(r"self-test of \w+: passed in .*", output.decode().splitlines()[-1])
