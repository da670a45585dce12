"""An engine behind TLS, and images in a registry that requires a login: the connections of the Docker provider's hook.

A stunnel with a client certificate check is in front of the machine's engine; the registry is Debian's
``docker-registry``. Both run in containers of one image (``gateways/``).
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from launcher.local_airflow import any_free_port
from launcher.processes import wait_until
from numerai_pipeline.containers.engine_connection import EngineConnection
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from tests.containers.conftest import Outcome

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]
START_SECONDS = 60.0
USER, PASSWORD = "numerai", "s3cr3t-of-the-registry"
STUNNEL = """\
foreground = yes
pid =
[engine]
accept = 2376
connect = /var/run/docker.sock
cert = /certificates/server-cert.pem
key = /certificates/server-key.pem
CAfile = /certificates/ca.pem
verifyChain = yes
"""
REGISTRY = f"""\
htpasswd -Bbn {USER} {PASSWORD} > /tmp/htpasswd
cat > /tmp/registry.yml <<END
version: 0.1
storage: {{filesystem: {{rootdirectory: /tmp/registry}}}}
http: {{addr: ":5000"}}
auth: {{htpasswd: {{realm: numerai, path: /tmp/htpasswd}}}}
END
exec docker-registry serve /tmp/registry.yml
"""


@pytest.fixture(scope="module")
def gateway_image(engine: docker.DockerClient) -> str:
    image, _ = engine.images.build(
        path=str(Path(__file__).parent / "gateways"), tag="numerai-tests-gateways", rm=True, forcerm=True
    )
    return str(image.id)


@contextmanager
def gateway(
    engine: docker.DockerClient, image: str, command: list[str], port: int, ready: str, **options: object
) -> Iterator[int]:
    """Run a container with a published port, and wait for a line of its log; gives the port on this machine."""
    published = any_free_port()
    container: Container = engine.containers.run(  # type: ignore[call-overload]
        image, command, ports={port: ("127.0.0.1", published)}, detach=True, init=True, **options
    )
    try:
        is_ready = wait_until(lambda: ready in container.logs().decode(), START_SECONDS, every=0.1)
        assert is_ready, container.logs().decode()
        yield published
    finally:
        container.remove(force=True, v=True)


def make_certificates(folder: Path) -> None:
    """Make a CA, and certificates signed by it for the server and for the client, with Docker's file names."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "rsa:2048", "-nodes", "-days", "1")
    openssl("req", "-x509", *new_key, "-subj", "/CN=test CA", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for prefix, name in (("server-", "127.0.0.1"), ("", "client")):
        openssl(
            *("req", "-x509", *new_key, "-subj", f"/CN={name}"),
            *("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{prefix}key.pem", "-out", f"{prefix}cert.pem"),
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    (folder / "stunnel.conf").write_text(STUNNEL)
    return folder


@pytest.fixture
def tls_engine(
    engine: docker.DockerClient, gateway_image: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Let only TLS connections with a client certificate reach the engine; gives its address."""
    command = ["stunnel4", "/certificates/stunnel.conf"]
    volumes = [f"{certificates}:/certificates:ro", "/var/run/docker.sock:/var/run/docker.sock"]
    with gateway(engine, gateway_image, command, 2376, "Configuration successful", volumes=volumes) as port:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
        # the requests library would prefer them to ca.pem
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        yield f"tcp://127.0.0.1:{port}"


def test_model_runs_on_an_engine_behind_tls(run_dag: RunDag, tls_engine: str) -> None:
    outcome = run_dag({"svm": {}})
    assert outcome.state == "success", outcome.output
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))
    # the start of a second run searches for orphans
    second = run_dag({"svm": {}}, force=True)
    assert second.state == "success"
    assert "started container" in second.output
    assert "skipping orphan cleanup" not in second.output
    assert EngineConnection.from_environment().client().ping()


@pytest.mark.parametrize("missing", ["client certificate", "certificate of the CA"])
def test_engine_behind_tls_with_wrong_certificates_is_unreachable(
    run_dag: RunDag, tls_engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    other, own = tmp_path / "certificates", Path(EngineConnection.from_environment().certificates or "")
    other.mkdir()
    make_certificates(other)
    if missing == "client certificate":
        (other / "ca.pem").write_bytes((own / "ca.pem").read_bytes())
    monkeypatch.setenv("DOCKER_CERT_PATH", str(other))
    monkeypatch.setenv("NUMERAI_ENGINE_TIMEOUT_SECONDS", "1")
    load_settings.cache_clear()
    outcome = run_dag({"svm": {}})
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "Docker engine unreachable" in outcome.output
    assert ("alert" if missing == "client certificate" else "CERTIFICATE_VERIFY_FAILED") in outcome.output


def test_missing_certificates_fail_the_task_without_retry(
    run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    outcome = run_dag({"svm": {}}, retries=3)
    assert outcome.tasks["svm"].try_number == 1
    assert "the certificates for the Docker engine cannot be read (DOCKER_CERT_PATH)" in outcome.output


@dataclass(frozen=True)
class Registry:
    """A registry that requires a login.

    Attributes
    ----------
    host : str
        Its address.
    prefix : str
        The value of NUMERAI_IMAGE_REGISTRY.
    """

    host: str
    prefix: str

    def connection(self, password: str) -> str:
        """Return the Airflow connection with a login."""
        return json.dumps({"conn_type": "docker", "host": self.host, "login": USER, "password": password})


@pytest.fixture
def registry(
    engine: docker.DockerClient, gateway_image: str, stub_images: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    """Run a registry that has the stub model, which the engine has under this name no longer."""
    name = image_reference(stub_images, "stub_model")
    with gateway(engine, gateway_image, ["sh", "-c", REGISTRY], 5000, "listening on") as port:
        found = Registry(f"127.0.0.1:{port}", f"127.0.0.1:{port}/{uuid.uuid4().hex[:8]}/")
        login = {"username": USER, "password": PASSWORD}
        engine.images.get(name).tag(found.prefix + name)
        answer = engine.images.push(found.prefix + name, auth_config=login)
        assert "digest" in answer, answer
        engine.images.remove(found.prefix + name)
        monkeypatch.setenv("NUMERAI_IMAGE_REGISTRY", found.prefix)
        load_settings.cache_clear()
        yield found
        for image in engine.images.list(found.prefix + name.partition(":")[0]):
            for tag in image.tags:
                if tag.startswith(found.prefix):
                    engine.images.remove(tag)


def test_image_of_registry_with_login_is_pulled(
    run_dag: RunDag, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_DOCKER_CONN_ID", "registry")
    monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", registry.connection(PASSWORD))
    outcome = run_dag({"svm": {}})
    assert outcome.state == "success", outcome.output
    assert f"pulling image {registry.prefix}" in outcome.output
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))
    assert PASSWORD not in outcome.output


def test_image_of_registry_without_login_names_the_setting(run_dag: RunDag, registry: Registry) -> None:
    outcome = run_dag({"svm": {}}, retries=3)
    assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
    assert "is not on this machine and cannot be pulled" in outcome.output
    assert "NUMERAI_DOCKER_CONN_ID" in outcome.output


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ("wrong password", "the login to the image registry (NUMERAI_DOCKER_CONN_ID) failed: "),
        (None, "the login to the image registry (NUMERAI_DOCKER_CONN_ID) is incomplete: "),
    ],
    ids=["wrong password", "no connection"],
)
def test_rejected_registry_login_fails_the_task_without_retry(
    run_dag: RunDag, registry: Registry, monkeypatch: pytest.MonkeyPatch, connection: str | None, message: str
) -> None:
    monkeypatch.setenv("NUMERAI_DOCKER_CONN_ID", "registry")
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", registry.connection(connection))
    outcome = run_dag({"svm": {}}, retries=3)
    assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
    assert message in outcome.output
