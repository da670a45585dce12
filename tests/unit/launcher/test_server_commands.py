"""Whole commands of a server with a program in place of Docker and Compose: what they run, in which order."""

from __future__ import annotations

import json
import re
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from launcher import __main__
from launcher.console import Screen
from launcher.errors import EXIT_FAILED, EXIT_USAGE
from launcher.paths import ROOT, ProjectPaths
from launcher.signals import STOPPING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

pytestmark = pytest.mark.slow

# every service is healthy once there was a `compose up`
DOCKER = """
case "$*" in
    "version --format"*) echo 27.0.1 ;;
    "context inspect"*) echo '[]' ;;
    "image inspect --format"*) image=${{*##* }}; cat "{root}/label-${{image%:*}}" 2>/dev/null ;;
    "build "*)
        for word; do case $word in numerai.made-from=*) label=${{word#*=}} ;; numerai-*:*) image=$word ;; esac; done
        echo "$label" > "{root}/label-${{image%:*}}" ;;
    "compose up"*) touch {root}/up ;;
    "compose run"*) printf '%s\\n' 0123456789ab abcdefabcdef ;;
    "compose exec"*) cat > {root}/stdin; echo created ;;
    "ps --all --quiet"*) [[ ! -e {root}/up ]] || echo {services} ;;
    "ps --quiet --all"*) [[ $* != *numerai=0123456789ab* ]] || echo model-1 ;;
    "inspect --type container"*) cat {root}/inspected ;;
    "exec "*pg_dump*) echo the-database ;;
    "exec "*pg_restore*) cat > {root}/restored ;;
    "exec "*) cat > /dev/null ;;
    "run "*" pack"*) echo the-data ;;
    "run "*" unpack"*) cat > {root}/unpacked; echo '{{"restored": 3, "existing": 2, "to be computed": 1}}' ;;
esac
"""
SERVICES = ("airflow-init", "api-server", "dag-processor", "postgres", "scheduler", "socket-proxy", "triggerer")


class Server:
    """A checkout with a fake Docker, in which all model images and base images are present."""

    def __init__(self, root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = ProjectPaths(root)
        self.root = root
        self.programs = programs
        self.screen = Screen(Console(record=True, width=200, force_terminal=False))
        monkeypatch.setattr(__main__, "ProjectPaths", lambda: self.paths)
        monkeypatch.setattr(__main__, "Screen", lambda: self.screen)
        programs.add("docker", DOCKER.format(root=root, services=" ".join((*SERVICES, "worker"))))
        self.inspect(dict.fromkeys((*SERVICES, "worker"), "healthy"))

    def inspect(self, health: dict[str, str]) -> None:
        """Let Docker give these containers, all of them running."""
        lines = [
            json.dumps(
                {
                    "Id": name,
                    "Config": {"Labels": {"com.docker.compose.service": name}},
                    "State": {"Status": "running", "ExitCode": 0, "Health": {"Status": state}},
                }
            )
            for name, state in health.items()
        ]
        (self.root / "inspected").write_text("\n".join(lines))

    def make(self, command: str, **options: str) -> tuple[int, str]:
        """Run a command of the launcher in this process; returns the exit code and the output."""
        code = __main__.main([command, *(f"{name}={value}" for name, value in options.items())])
        return code, self.screen.console.export_text()

    def calls(self) -> list[str]:
        """The calls of Compose since the last time, shortened to their first words, and `build`."""
        calls = [line.removeprefix("docker ") for line in self.programs.calls("docker ")]
        self.programs.calls_file.write_text("")
        found = [" ".join(call.split()[:2]) for call in calls if call.startswith(("compose", "build ", "exec", "run "))]
        return [call for call in found if call != "compose version"]


@pytest.fixture
def server(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(ROOT / "model_images"))
    root = tmp_path / "root"
    for name in (".dockerignore", ".env.example", "docker-compose.yaml", "pyproject.toml", "uv.lock"):
        root.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, root)
    for name in ("dags", "model_images", "plugins", "practice", "server/airflow", "server/socket_proxy"):
        (root / name).mkdir(parents=True)
        (root / name / "Dockerfile").touch()
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    yield Server(root, programs, monkeypatch)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_server_is_set_up_started_and_updated(server: Server) -> None:
    code, output = server.make("server", PORT="9000", NUMERAI_KEEP_DAYS="9")
    assert code == 0, output
    assert "with new secrets, readable only by you" in output
    assert "8 services are healthy" in output
    assert "Airflow's page    http://127.0.0.1:9000/dags/numerai_tournament" in output
    assert "NUMERAI_KEEP_DAYS=9" in server.paths.env_file.read_text()
    assert server.calls() == ["build --force-rm", "build --force-rm", "compose up"]

    code, output = server.make("server", PORT="9001")
    assert code == EXIT_USAGE
    assert "PORT=9001: differs from" in output
    assert "compose up" not in server.calls()


def test_server_with_an_unhealthy_service_prints_its_log(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.compose.wait_until", lambda condition, _timeout, **_: condition())
    server.inspect(dict.fromkeys(SERVICES, "healthy") | {"scheduler": "unhealthy"})
    code, output = server.make("server")
    assert code == EXIT_FAILED
    assert "✗ Server          1 of the server's services did not become healthy" in output
    assert "scheduler (unhealthy):" in output


def test_upgrade_backs_up_before_it_stops_airflow(server: Server) -> None:
    server.make("server")
    server.calls()
    code, output = server.make("server-upgrade")
    assert code == 0, output
    calls = server.calls()
    steps = [call for call in calls if call in {"exec postgres", "run --rm", "compose stop", "compose up"}]
    assert steps == ["exec postgres", "run --rm", "compose stop", "compose up"]


def test_backup_is_private_and_restored(server: Server) -> None:
    server.make("server")
    code, output = server.make("server-backup")
    assert code == 0, output
    (folder,) = server.paths.backups.iterdir()
    assert {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir() if path.name != "backup.json"} == {
        "database.dump": 0,
        "data.tar.gz": 0,
        "env": 0,
    }
    assert (folder / "database.dump").read_text() == "the-database\n"
    env = server.paths.env_file.read_text()
    server.paths.env_file.unlink()

    code, output = server.make("server-restore", FROM=str(folder))
    assert code == 0, output
    assert server.paths.env_file.read_text() == env
    assert server.paths.env_file.stat().st_mode & 0o077 == 0
    assert (server.root / "restored").read_text() == "the-database\n"
    assert (server.root / "unpacked").read_text() == "the-data\n"
    assert "3 files restored, 2 existed, 1 will be computed when needed" in output


def test_restore_rejects_a_damaged_backup_and_another_key(server: Server) -> None:
    server.make("server")
    server.make("server-backup")
    (folder,) = server.paths.backups.iterdir()
    text = server.paths.env_file.read_text()
    server.paths.env_file.write_text(re.sub("FERNET_KEY=.*", "FERNET_KEY=another", text))
    code, output = server.make("server-restore", FROM=str(folder))
    assert (code, "differs from the backup's" in output) == (EXIT_FAILED, True)
    (folder / "database.dump").write_text("x")
    code, output = server.make("server-restore", FROM=str(folder))
    assert (code, "does not match its SHA-256" in output) == (EXIT_FAILED, True)
    code, output = server.make("server-restore", FROM="nowhere")
    assert (code, f"The newest: FROM={folder}" in output) == (EXIT_USAGE, True)


def test_user_is_created_with_a_password_by_standard_input(server: Server) -> None:
    server.make("server")
    code, output = server.make("server-user", NAME="anna", ROLE="Op")
    assert code == 0, output
    password = re.findall(r"^Password +(\S+)$", output, flags=re.MULTILINE)[-1]
    assert (server.root / "stdin").read_text() == f"{password}\n{password}\n"
    (call,) = server.programs.calls("docker compose exec")
    assert "--username anna --role Op" in call
    assert password not in call
    assert server.make("server-user", NAME="a b")[0] == EXIT_USAGE
    assert server.make("server-user", NAME="a", ROLE="king")[0] == EXIT_USAGE


def test_server_down_removes_the_model_containers(server: Server) -> None:
    server.make("server")
    code, output = server.make("server-down")
    assert code == 0, output
    assert "and 1 model containers removed" in output
    (removal,) = server.programs.calls("docker ps --quiet --all")
    assert "label=numerai=0123456789ab --filter label=numerai.deployment=abcdefabcdef" in removal
    assert server.programs.calls("docker rm --force --volumes model-1")
    assert server.programs.calls("docker compose down --remove-orphans")


def test_worker_starts_only_its_services(server: Server) -> None:
    server.make("server")
    server.calls()
    code, output = server.make("worker", BROKER="10.0.0.5", NAME="big")
    assert code == 0, output
    assert "a worker does not need POSTGRES_PASSWORD" in output
    assert "big, broker 10.0.0.5:6379, queues default,cpu,big-memory" in output
    (up,) = server.programs.calls("docker compose up")
    assert up.endswith("up --detach --no-build --no-deps socket-proxy worker")
    assert server.make("worker")[0] == EXIT_USAGE


def test_logs_of_an_unknown_service_names_the_known_ones(server: Server) -> None:
    server.make("server")
    code, output = server.make("server-logs", SERVICE="shceduler")
    assert (code, "choose from airflow-init, api-server" in output) == (EXIT_USAGE, True)
    assert server.make("server-logs", SERVICE="scheduler")[0] == 0
    assert server.programs.calls("docker compose logs --tail 200 --follow scheduler")
