"""The reverse proxy of docs/deployment/tls.md with the documented certificate, before a real Airflow."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import pytest
from docker.models.containers import Container

from launcher import local_airflow
from launcher.paths import ProjectPaths
from launcher.processes import Services, wait_until
from tests.samples import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.end_to_end]

PATIENCE = 120.0
NAME = "localhost"
# as in docker-compose.yaml
RIGHTS = ["CHOWN", "DAC_READ_SEARCH", "SETGID", "SETUID"]


def make_certificate(folder: Path) -> None:
    """Make a certificate with the documented command, for another name."""
    (command,) = re.findall(
        r"^openssl (?:.*\\\n)*.*$", (ROOT / "docs" / "deployment" / "tls.md").read_text(), flags=re.MULTILINE
    )
    arguments = shlex.split(
        command.replace("\\\n", "").replace("numerai.example.org", NAME).replace("server/tls/certificates", str(folder))
    )
    subprocess.run(arguments, check=True, capture_output=True)
    (folder / "key.pem").chmod(0o600)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Airflow's API server on this machine; yields its port and the file of its password."""
    checkout = ProjectPaths(tmp_path_factory.mktemp("airflow"))
    checkout.airflow_home.mkdir()
    port = local_airflow.any_free_port()
    environment = local_airflow.airflow_environment(checkout, port=port, practice_url=None, scheduled=False)
    environment |= {
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__API__BASE_URL": f"https://{NAME}",
        "NUMERAI_DATA_DIR": str(checkout.root / "data"),
    }
    program = str(Path(sys.executable).parent / "airflow")
    migrated = subprocess.run(
        [program, "db", "migrate"], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    services = Services(checkout.services)
    command = [program, "api-server", "--proxy-headers", "--host", local_airflow.HOST, "--port", str(port)]
    log = local_airflow.log_file(checkout)
    record = services.start("api-server", command, owner="test", log=log, env=environment)
    try:

        def answers() -> bool:
            try:
                found = httpx.get(f"http://{local_airflow.HOST}:{port}/api/v2/version", trust_env=False, timeout=5)
            except httpx.HTTPError:
                assert record.alive, log.read_text()
                return False
            return found.status_code == 200

        assert wait_until(answers, PATIENCE, every=0.5), log.read_text()
        yield port, local_airflow.password_file(checkout)
    finally:
        services.stop("api-server", grace=local_airflow.STOP_SECONDS)


@dataclass
class Outside:
    """The page from outside."""

    container: Container
    port: int
    certificates: Path
    password_file: Path

    @property
    def address(self) -> str:
        return f"https://{NAME}:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificates / "certificate.pem"))

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, verify=self.trust, trust_env=False, timeout=30)

    def sign_in(self, client: httpx.Client) -> httpx.Response:
        password = json.loads(self.password_file.read_text())[local_airflow.USER]
        return client.post("/auth/token", json={"username": local_airflow.USER, "password": password})

    def served_certificate(self) -> str:
        """The served certificate."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((NAME, self.port), timeout=30) as raw,
            context.wrap_socket(raw, server_hostname=NAME) as secure,
        ):
            served = secure.getpeercert(binary_form=True)
        assert served
        return ssl.DER_cert_to_PEM_cert(served)


@pytest.fixture(scope="module")
def outside(
    engine: docker.DockerClient, airflow: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    inside_port, password_file = airflow
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder)
    port = local_airflow.any_free_port()
    text = (ROOT / "server" / "tls" / "nginx.conf").read_text()
    for here, there in (
        ("http://api-server.tls:8080", f"http://{local_airflow.HOST}:{inside_port}"),
        ("listen 8443 ssl;", f"listen {local_airflow.HOST}:{port} ssl;"),
    ):
        assert text.count(here) == 1
        text = text.replace(here, there)
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    folder_of_image = ROOT / "tests" / "server" / "offline_images" / "nginx"
    image, _ = engine.images.build(path=str(folder_of_image), tag="numerai-tests-nginx", rm=True, forcerm=True)
    container = engine.containers.create(
        str(image.id),
        name=f"numerai-tests-{uuid.uuid4().hex[:8]}",
        network_mode="host",
        volumes=[f"{configuration}:/etc/nginx/nginx.conf:ro", f"{folder}:/etc/nginx/certificates:ro"],
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - the container's own
        cap_drop=["ALL"],
        cap_add=RIGHTS,
        security_opt=["no-new-privileges"],
    )
    try:
        container.start()

        def listens() -> bool:
            try:
                socket.create_connection((NAME, port), timeout=5).close()
            except OSError:
                return False
            return True

        assert wait_until(listens, 30, every=0.1), container.logs().decode()
        yield Outside(container, port, folder, password_file)
    finally:
        container.remove(force=True)


def test_sign_in_requires_a_session_over_https(outside: Outside) -> None:
    with outside.client() as client:
        assert client.get("/api/v2/dags").status_code == 401
        assert client.get("/numerai/leaderboard/").status_code == 401
        signed_in = outside.sign_in(client)
        assert signed_in.status_code == 201
        token = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        assert client.get("/api/v2/dags", headers=token).status_code == 200
        assert client.get("/numerai/leaderboard/", headers=token).status_code == 200
        assert signed_in.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert "nginx/" not in signed_in.headers["Server"]


def test_plain_http_is_rejected(outside: Outside) -> None:
    answer = httpx.get(outside.address.replace("https", "http") + "/api/v2/version", trust_env=False, timeout=30)
    assert (answer.status_code, "version" in answer.text) == (400, False)


def test_certificate_is_the_documented_one(outside: Outside) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(outside.address, verify=ssl.create_default_context(), trust_env=False)
    assert outside.served_certificate() == (outside.certificates / "certificate.pem").read_text()


def test_old_tls_is_rejected(outside: Outside) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((NAME, outside.port), timeout=30) as raw, pytest.raises(ssl.SSLError, match="ALERT"):
        context.wrap_socket(raw, server_hostname=NAME)


def test_cookies_are_secure(outside: Outside, airflow: tuple[int, Path]) -> None:
    """Airflow marks its cookies Secure when the outside is https."""
    stale = {"Cookie": "_token=stale"}
    with outside.client() as client:
        by_https = client.get("/api/v2/dags", headers=stale).headers["Set-Cookie"]
    plain = httpx.get(
        f"http://{local_airflow.HOST}:{airflow[0]}/api/v2/dags", headers=stale, trust_env=False, timeout=30
    )
    assert "; Secure" in by_https
    assert "; Secure" not in plain.headers["Set-Cookie"]


def test_execution_api_is_not_reachable(outside: Outside, airflow: tuple[int, Path]) -> None:
    path = "/execution/health/ping"
    assert httpx.get(f"http://{local_airflow.HOST}:{airflow[0]}{path}", trust_env=False, timeout=30).status_code == 200
    for variant in (path, "//execution/health/ping", "/x/../execution/health/ping", "/%65xecution/health/ping"):
        # without normalization, which an ordinary client would do
        client = http.client.HTTPSConnection(NAME, outside.port, context=outside.trust, timeout=30)
        with contextlib.closing(client):
            client.request("GET", variant)
            answer = client.getresponse()
            assert (variant, answer.status, b"ok" in answer.read()) == (variant, 404, False)


def test_renewed_certificate_is_served_after_sighup(outside: Outside) -> None:
    before = outside.served_certificate()
    make_certificate(outside.certificates)
    assert outside.served_certificate() == before
    outside.container.kill("SIGHUP")
    renewed = (outside.certificates / "certificate.pem").read_text()
    assert renewed != before

    def is_served_by_all() -> bool:
        if outside.served_certificate() != renewed:
            return False
        # count the workers only now: earlier the old ones may not have received the signal yet
        processes = outside.container.top(ps_args="-eo pid,args")["Processes"]
        return [command for _, command in processes if "worker" in command] == ["nginx: worker process"]

    assert wait_until(is_served_by_all, 30, every=0.1)
    with outside.client() as client:
        assert client.get("/api/v2/version").status_code == 200


def test_password_guessing_is_rate_limited(outside: Outside) -> None:
    """The last test: after wrong guesses, an address must wait before the next sign-in."""
    with outside.client() as client:
        wrong = {"username": local_airflow.USER, "password": "wrong"}
        answers = [client.post("/auth/token", json=wrong).status_code for _ in range(15)]
        assert answers[0] == 401
        assert answers[-1] == 429
        assert client.get("/api/v2/version").status_code == 200
