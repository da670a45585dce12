"""``make server`` from a fresh checkout to a run, through restarts, an upgrade, and a total loss."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from launcher.processes import wait_until
from launcher.server_settings import SECRETS
from practice.rounds import round_open_at
from tests.samples import ROUND_DAYS, task
from tests.server.server_fixture import DAG_ID, RUN_SECONDS, Server, set_up
from tests.unit.server.test_compose_file import NEEDS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.server, pytest.mark.containers, pytest.mark.timeout(3600)]

SERVICES = ("postgres", "socket-proxy", "api-server", "scheduler", "dag-processor", "triggerer")
LEADERBOARD = "/numerai/leaderboard/api/runs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Set up one server for all of these tests, which build on one another."""
    with set_up(tmp_path_factory.mktemp("server") / "checkout") as prepared:
        prepared.add_toys({"long": {"MODE": "wait"}, "quick": {}})
        output = prepared.make_server({})
        assert "services are healthy" in output
        yield prepared


def test_server_is_healthy_and_its_secrets_are_private(server: Server) -> None:
    states = server.services()
    assert sorted(states) == sorted([*SERVICES, "airflow-init"])
    assert stat.S_IMODE((server.root / ".env").stat().st_mode) == 0o600
    before = (server.root / ".env").read_bytes()
    server.wait_until_healthy()
    answer = server.make("server", "PORT=1999", check=False)
    assert answer.returncode != 0
    assert "which the launcher never changes" in answer.stdout
    assert (server.root / ".env").read_bytes() == before


def test_airflow_runs_unprivileged_without_the_docker_socket(server: Server) -> None:
    for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert server.compose("exec", "-T", service, "id", "-u").strip() == "50000"
        found = server.compose(
            "exec", "-T", service, "sh", "-c", "ls /var/run/docker.sock /run/docker.sock 2>&1 || true"
        )
        assert found.count("No such file") == 2
    code = (
        "import docker; client = docker.from_env()\n"
        "for call in (client.info, client.volumes.list, client.api.init_swarm):\n"
        "    try: call(); print('passed')\n"
        "    except docker.errors.APIError as error: print(error.status_code)"
    )
    assert server.compose("exec", "-T", "scheduler", "python", "-c", code).split() == ["403"] * 3


def test_services_have_only_the_secrets_that_they_need(server: Server) -> None:
    settings = server.settings
    for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
        environment = server.compose("exec", "-T", service, "env")
        found = {secret for secret in SECRETS if settings[secret] in environment}
        # without the profile celery, no service has a use for the broker's password
        assert found - {"REDIS_PASSWORD"} == {name for name in SECRETS if service in NEEDS[name]} - {"REDIS_PASSWORD"}


def test_api_server_trusts_the_headers_of_the_reverse_proxys_network_only(server: Server) -> None:
    project = server.settings["COMPOSE_PROJECT_NAME"]
    form = "{{(index .IPAM.Config 0).Subnet}}"
    command = ["docker", "network", "inspect", f"{project}_tls", "--format", form]
    subnet = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert f"headers of reverse proxies are trusted from {subnet}\n" in server.compose(
        "logs", "--no-color", "api-server"
    )


def test_viewers_may_read_and_administrators_may_write(server: Server) -> None:
    output = server.make("server-user", "NAME=anna", "ROLE=viewer").stdout
    password = output.split("Password", 1)[1].split()[0]
    with httpx.Client(base_url=server.address, trust_env=False, timeout=60) as client:

        def signed_in(user: str, secret: str) -> dict[str, str]:
            answer = client.post("/auth/token", json={"username": user, "password": secret})
            assert answer.status_code == 201, answer.text
            return {"Authorization": f"Bearer {answer.json()['access_token']}"}

        for user, guess in (("admin", "admin"), ("admin", "airflow"), ("airflow", "airflow"), ("anna", "anna")):
            assert client.post("/auth/token", json={"username": user, "password": guess}).status_code == 401
        viewer, admin = signed_in("anna", password), signed_in("admin", server.settings["ADMIN_PASSWORD"])
        for path in ("/api/v2/dags", LEADERBOARD):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=viewer).status_code == 200
            assert client.get(path, headers=admin).status_code == 200
        run = {"logical_date": None, "conf": {"source": "archive", "archive": str(server.archive)}}
        assert client.post(f"/api/v2/dags/{DAG_ID}/dagRuns", json=run, headers=viewer).status_code == 403
        assert client.get("/api/v2/connections", headers=viewer).status_code == 403
        assert client.get("/api/v2/connections", headers=admin).status_code == 200


def test_backfill_runs_past_weeks(server: Server) -> None:
    conf = {"source": "archive", "archive": str(server.archive), "models": ["quick"], "seed": 1}
    command = ["--dag-id", DAG_ID, "--from-date", "2026-06-06", "--to-date", "2026-06-14"]
    command += ["--max-active-runs", "1", "--dag-run-conf", json.dumps(conf)]
    server.compose("exec", "-T", "scheduler", "airflow", "backfill", "create", *command)
    api = server.api

    def runs() -> dict[str, str]:
        return {run["dag_run_id"]: run["state"] for run in api.runs(DAG_ID, run_type="backfill")}

    assert wait_until(lambda: set(runs().values()) in ({"success"}, {"failed"}), RUN_SECONDS, every=1), runs()
    assert list(runs().values()) == ["success"] * 2
    # both are of one archive with the same settings: the results of the first are up to date for the second
    assert sorted(server.created_containers(run) for run in runs()) == [[], ["quick"]]
    assert [server.containers(run) for run in runs()] == [[], []]


def test_run_survives_the_restart_of_each_service(server: Server) -> None:
    server.trigger("restarts", seed=3)
    container = server.running_container("restarts", "long")
    restarted = datetime.now(UTC)
    for service in SERVICES:
        server.compose("restart", service)
        if service == "scheduler":
            restarted = datetime.now(UTC)
        server.wait_until_healthy()
        assert server.containers("restarts", of_task="long") == [container]

    def is_reattached() -> bool:
        found = server.task("restarts", "long")
        return found["state"] == "running" and datetime.fromisoformat(found["start_date"]) > restarted

    assert wait_until(is_reattached, 600, every=1), server.task("restarts", "long")
    server.release(container)
    assert server.wait_for_end("restarts") == "success", server.api.task_instances(DAG_ID, "restarts")
    assert server.created_containers("restarts") == ["long", "quick"]
    assert server.containers("restarts") == []


def test_run_survives_an_upgrade(server: Server) -> None:
    server.trigger("upgrade", seed=2)
    container = server.running_container("upgrade", "long")
    dag = server.root / "dags" / "numerai_tournament.py"
    dag.write_text(dag.read_text().replace('dag_display_name="Numerai tournament"', 'dag_display_name="Upgraded"'))
    output = server.make("server-upgrade").stdout
    assert "Backup" in output
    assert server.containers("upgrade", of_task="long") == [container]
    shown = wait_until(lambda: (server.api.dag(DAG_ID) or {})["dag_display_name"] == "Upgraded", 300, every=1)
    assert shown, server.api.dag(DAG_ID)
    server.release(container)
    assert server.wait_for_end("upgrade") == "success", server.api.task_instances(DAG_ID, "upgrade")
    assert server.created_containers("upgrade") == ["long", "quick"]
    assert server.containers("upgrade") == []


def test_server_is_restored_from_a_backup_after_a_total_loss(server: Server, tmp_path: Path) -> None:
    server.trigger("kept", seed=4, models=["quick"])
    assert server.wait_for_end("kept") == "success", server.api.task_instances(DAG_ID, "kept")
    assert server.created_containers("kept") == ["quick"]
    connection = {"connection_id": "secret", "conn_type": "generic", "login": "id", "password": "of-the-backup"}
    password = server.settings["ADMIN_PASSWORD"]
    with httpx.Client(base_url=server.api.address, trust_env=False, timeout=60) as client:
        token = client.post("/auth/token", json={"username": "admin", "password": password}).json()["access_token"]
        answer = client.post("/api/v2/connections", json=connection, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text
    server.make("server-backup", f"TO={tmp_path}")
    (backup,) = tmp_path.iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    assert stat.S_IMODE((backup / "env").stat().st_mode) == 0o600

    server.make("server-down")
    toys, archive = server.data / "model_images", server.archive
    shutil.copytree(toys, tmp_path / "toys")
    shutil.copy2(archive, tmp_path / "archive.zip")
    server.destroy()
    shutil.rmtree(server.data)
    (server.root / ".env").unlink()
    # images and the archive are not in the backup: the user has them elsewhere
    shutil.copytree(tmp_path / "toys", toys)
    shutil.copy2(tmp_path / "archive.zip", archive)

    damaged = tmp_path / "damaged"
    shutil.copytree(backup, damaged)
    with (damaged / "database.dump").open("ab") as file:
        file.write(b"x")
    refused = server.make("server-restore", f"FROM={damaged}", check=False)
    assert refused.returncode != 0
    assert "does not match its SHA-256" in refused.stdout
    assert not (server.root / ".env").exists()

    output = server.make("server-restore", f"FROM={backup}").stdout
    assert "files restored" in output
    assert server.settings["ADMIN_PASSWORD"] == password
    assert server.api.run_state(DAG_ID, "kept") == "success"
    secret = server.compose("exec", "-T", "scheduler", "airflow", "connections", "get", "secret", "--output", "json")
    assert "of-the-backup" in secret
    # the predictions are restored, so only the tables are made again
    server.trigger("again", seed=4, models=["quick"])
    assert server.wait_for_end("again") == "success", server.api.task_instances(DAG_ID, "again")
    assert server.created_containers("again") == []
    metadata = json.loads((backup / "backup.json").read_text())
    assert sorted(metadata["sha256"]) == ["data.tar.gz", "database.dump", "env"]


def test_schedule_starts_a_run_of_the_open_round(server: Server) -> None:
    """The simulator replaces Numerai, and the schedule has the day of its open round."""
    server.write_registry({"weekly": task(image="stub_model", tables="csv")})
    today = round_open_at(datetime.now(UTC))
    season = "http://practice:8000"
    changed = {"COMPOSE_PROFILES": "practice", "NUMERAI_API_URL": season, "NUMERAI_PRACTICE_URL": season}
    server.change_settings({**changed, "NUMERAI_SCHEDULE": ROUND_DAYS[today.weekday]})
    api = server.api

    def scheduled() -> list[tuple[str, str]]:
        return [(run["dag_run_id"], run["state"]) for run in api.runs(DAG_ID, run_type="scheduled")]

    assert wait_until(lambda: any(state in ("success", "failed") for _, state in scheduled()), RUN_SECONDS, every=1)
    ((run, state),) = scheduled()
    assert state == "success", api.task_instances(DAG_ID, run)
    assert server.created_containers(run) == ["weekly"]
    assert server.containers(run) == []
    (predictions,) = (server.data / "rounds" / str(today.number)).glob("*/predictions/weekly.csv")
    assert len(predictions.read_text().splitlines()) > 100


def test_page_is_served_by_https(server: Server, tmp_path: Path) -> None:
    certificates = server.root / "server" / "tls" / "certificates"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(certificates / "key.pem"), "-out", str(certificates / "certificate.pem")]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*new, *subject, *files], check=True, capture_output=True)
    (certificates / "key.pem").chmod(0o600)
    changed = {"COMPOSE_PROFILES": "tls", "TLS_BIND": "127.0.0.1", "TLS_PORT": "18444", "COOKIE_SECURE": "True"}
    changed["BASE_URL"] = f"https://127.0.0.1:{changed['TLS_PORT']}"
    server.change_settings(changed)
    trusted = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    with httpx.Client(base_url=changed["BASE_URL"], verify=trusted, trust_env=False, timeout=60) as client:
        page = client.get("/", follow_redirects=True)
        assert page.status_code == 200
        assert page.url.scheme == "https"
        assert "max-age" in page.headers["strict-transport-security"]
        cookies = client.get("/auth/login/").headers.get_list("set-cookie")
        assert cookies
        assert all("secure" in cookie.lower() for cookie in cookies)
        assert client.get("/execution/health").status_code == 404
        guesses = [
            client.post("/auth/token", json={"username": "admin", "password": "x"}).status_code for _ in range(20)
        ]
        assert guesses[0] == 401
        assert guesses[-1] == 429
