"""The socket proxy in front of the real engine: it passes the pipeline's calls, and rejects all others."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import re
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from docker.models.containers import Container

from launcher.processes import wait_until
from numerai_pipeline.containers.check_data_volume import check_data_volume
from numerai_pipeline.containers.data_volume import find_data_volume, installation_id
from numerai_pipeline.containers.engine_backend import EngineBackend
from numerai_pipeline.containers.housekeeping import Cleanup, remove_containers
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.parameters import LONGEST_SEARCH
from numerai_pipeline.core.settings import Settings, load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.models.registry import ModelSpec
from numerai_pipeline.storage.layout import RunLayout
from tests.containers.conftest import LIVE_IDS, Outcome
from tests.containers.test_data_volume import CHECK
from tests.engine_relay import pass_on
from tests.samples import DEPLOYMENT, ROOT
from tests.server.conftest import PORT, SOCKET, Proxy, StartProxy

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]
Start = Callable[..., Container]
HIDDEN = "a file of another run"
# unique on the same engine
INSTALLATION = f"tests-{uuid.uuid4().hex[:8]}"


def request(proxy: Proxy, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """Send a request without normalization; returns the response's status and text."""
    connection = http.client.HTTPConnection(proxy.host, PORT, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        content = (body or "").encode()
        for name, value in {"Content-Type": "application/json", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if content:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


# ---- calls of the pipeline ----


def test_proxy_passes_a_whole_run(run_dag: RunDag, through_proxy: Proxy) -> None:
    outcome = run_dag({"svm": {}, "xgboost": {"cores": 2}}, seed=5)
    assert outcome.state == "success", outcome.output
    assert "[ 50 %] svm with seed 5" in outcome.output
    for model in ("svm", "xgboost"):
        assert len(RunLayout(outcome.directory).predictions(model).read_text().splitlines()) == len(LIVE_IDS) + 1
    assert "403" not in through_proxy.log


def test_proxy_passes_errors_unchanged(run_dag: RunDag, through_proxy: Proxy) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}}, retries=3)
    assert "svm: bad data (exit code 65): training.parquet: column 'era' is missing (found: id)" in outcome.output


def test_timeout_through_the_proxy_removes_the_container(
    run_dag: RunDag, through_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, engine: docker.DockerClient
) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes, _targets: 5 if minutes == LONGEST_SEARCH else 0.03)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert "svm: stopped after its time limit of 0.03 minutes" in outcome.output
    label = f"numerai={installation_id(load_settings().data_dir)}"
    assert engine.containers.list(all=True, filters={"label": label}) == []


def test_model_container_can_read_only_its_own_run(run_dag: RunDag, through_proxy: Proxy, tmp_path: Path) -> None:
    other = tmp_path / "data" / "rounds" / "archive" / "another" / HIDDEN
    other.parent.mkdir(parents=True)
    other.write_text("a private file")
    outcome = run_dag({"svm": {"parameters": {"MODE": "look around", "PROXY": through_proxy.host}}})
    assert outcome.state == "success"
    report = outcome.output
    assert "networks: ['lo']" in report
    assert "not reached: Network is unreachable" in report
    assert "sockets: []" in report
    files = re.findall(r"files: \[(.*?)\]", report)[0]
    assert "'/data/training.parquet'" in files
    assert "another" not in files
    assert HIDDEN not in report
    assert re.search(r"above: \[.*'bin'.*'data'.*\]", report)  # the image's own root folder


def test_missing_image_is_pulled_through_the_proxy(through_proxy: Proxy) -> None:
    client = docker.from_env().api
    # a closed port: the engine reports it at once
    with pytest.raises(docker.errors.APIError, match="connection refused"):
        client.pull("127.0.0.1:1/numerai-classic", "0123456789ab")


def good_container(data: Path, image: str, **changes: Any) -> dict[str, Any]:
    """Describe a container like the operator's, with some keys of its host configuration changed."""
    return {
        "Image": image,
        "User": "10001:10001",
        "Labels": {"numerai": INSTALLATION, "numerai.task": "svm"},
        "Env": ["SEED=1"],
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": 2**27,
            "MemorySwap": 2**27,
            "CpuPeriod": 100_000,
            "CpuQuota": 100_000,
            "PidsLimit": 64,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
            "Init": True,
            "Mounts": [{"Type": "bind", "Source": str(data / "run"), "Target": "/data", "ReadOnly": False}],
            **changes,
        },
    }


@pytest.fixture(scope="module")
def toy(stub_images: Path) -> str:
    return image_reference(stub_images, "stub_model")


@pytest.fixture
def run_folder(proxy: Proxy) -> Path:
    folder = proxy.data / "run"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def start(engine: docker.DockerClient, toy: str) -> Iterator[Start]:
    """Start containers beside the proxy; they are removed at the end."""
    started = []

    def run(script: str = "import time; time.sleep(600)", **options: Any) -> Container:
        container = engine.containers.run(
            toy, [script], entrypoint=["python", "-u", "-c"], network_mode="none", init=True, detach=True, **options
        )
        started.append(container)
        return container

    yield run
    for container in started:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


@pytest.fixture
def created(engine: docker.DockerClient) -> Iterator[None]:
    """Remove the containers that a test creates through the proxy."""
    yield
    for container in engine.containers.list(all=True, filters={"label": f"numerai={INSTALLATION}"}):
        container.remove(force=True, v=True)


def test_housekeeping_works_through_the_proxy(through_proxy: Proxy, start: Start, tmp_path: Path) -> None:
    data = load_settings().data_dir
    labels = {"numerai": installation_id(data), "numerai.dag": "d", "numerai.run": "r", "numerai.task": "svm"}
    start(labels=labels, volumes=[f"{data}/rounds:/data"])
    client, settings = docker.from_env().api, load_settings()
    backend = EngineBackend(lambda: client, settings)
    assert find_data_volume(settings, client).host_path(data / "rounds").name == "rounds"
    cleanup = Cleanup(datetime.now(tz=UTC) + timedelta(days=2), dry_run=False)
    remove_containers(cleanup, backend, labels["numerai"], DEPLOYMENT, keep_days=1, is_active=lambda _container: False)
    assert len(cleanup.removed) == 1
    assert client.containers(all=True, filters={"label": f"numerai={labels['numerai']}"}) == []


def test_airflow_container_without_socket_shares_a_named_volume(
    start_proxy: StartProxy,
    engine: docker.DockerClient,
    airflows_image: str,
    named_volume: str,
    internal_network: str,
    toys: Path,
) -> None:
    with start_proxy(named_volume) as proxy:
        report = engine.containers.run(
            airflows_image,
            list(CHECK),
            volumes=[f"{named_volume}:/opt/numerai", f"{ROOT / 'plugins'}:/plugins:ro", f"{toys}:/images:ro"],
            environment={
                "PYTHONPATH": "/plugins",
                "NUMERAI_DATA_DIR": "/opt/numerai",
                "NUMERAI_IMAGES_DIR": "/images",
                "DOCKER_HOST": proxy.address,
            },
            network=internal_network,
            remove=True,
            stderr=True,
        ).decode()
    assert f"{engine.volumes.get(named_volume).attrs['Mountpoint']} for the Docker engine at {proxy.address}" in report


def test_check_data_volume_reports_a_wrong_path_on_the_host(through_proxy: Proxy, toy: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", data_dir_on_host=Path("/srv/another"))
    with pytest.raises(BadInputError) as refused:
        check_data_volume(settings, docker.from_env().api, toy)
    assert f"It is {tmp_path / 'data'} for Airflow (NUMERAI_DATA_DIR)" in str(refused.value)
    assert f"may mount folders and files of the data volume, {through_proxy.data}, and nothing else" in str(
        refused.value
    )


# ---- forbidden calls ----

FORBIDDEN = [
    ("GET", "/info"),
    ("GET", "/v1.41/info"),
    ("GET", "/events"),
    ("GET", "/system/df"),
    ("POST", "/auth"),
    ("POST", "/build"),
    ("POST", "/v1.41/build?t=numerai-toy"),
    ("POST", "/build/prune"),
    ("POST", "/session"),
    ("POST", "/commit?container={ours}"),
    ("POST", "/containers/{ours}/exec"),
    ("POST", "/exec/0123/start"),
    ("POST", "/containers/{ours}/attach?stream=1"),
    ("GET", "/containers/{ours}/archive?path=/"),
    ("PUT", "/containers/{ours}/archive?path=/"),
    ("GET", "/containers/{ours}/export"),
    ("POST", "/containers/{ours}/update"),
    ("POST", "/containers/{ours}/rename?name=x"),
    ("POST", "/containers/{ours}/kill"),
    ("POST", "/containers/{ours}/stop"),
    ("POST", "/containers/prune"),
    ("GET", "/containers/json"),
    ("GET", "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.example%3Dx%22%5D%7D"),
    ("GET", "/containers/{other}/json"),
    ("GET", "/containers/{other}/logs?stdout=1"),
    ("POST", "/containers/{other}/wait"),
    ("POST", "/containers/{other}/start"),
    ("DELETE", "/containers/{other}?force=1"),
    ("DELETE", "/containers/{ours}?force=1&link=1"),
    ("POST", "/containers/create?name=postgres"),
    ("POST", "/images/create?fromSrc=http://127.0.0.1:1/x.tar"),
    ("POST", "/images/create?fromImage=x&fromImage=y"),
    ("POST", "/images/load"),
    ("POST", "/images/numerai-toy/push"),
    ("POST", "/images/numerai-toy/tag?repo=x"),
    ("DELETE", "/images/numerai-toy"),
    ("POST", "/images/prune"),
    ("GET", "/images/numerai-toy/get"),
    ("GET", "/volumes"),
    ("POST", "/volumes/create"),
    ("DELETE", "/volumes/{volume}"),
    ("POST", "/volumes/prune"),
    ("GET", "/networks"),
    ("POST", "/networks/create"),
    ("POST", "/swarm/init"),
    ("GET", "/nodes"),
    ("POST", "/services/create"),
    ("GET", "/secrets"),
    ("GET", "/plugins"),
    ("POST", "/plugins/pull?remote=x"),
    # the same calls in other notations
    ("GET", "/containers/../info"),
    ("GET", "/containers/%2e%2e/info"),
    ("GET", "/v1.41/_ping/../info"),
    ("GET", "//info"),
    ("GET", "http://docker/info"),
    ("GET", "/ordinary/info"),
    ("GET", "/quiet/info"),
    ("POST", "/create/containers/create"),
    ("POST", "/containers/{ours}/start/../exec"),
    ("POST", "/containers/{ours}%2fexec"),
]


def test_proxy_rejects_every_other_call(proxy: Proxy, start: Start, named_volume: str) -> None:
    ours, other = start(labels={"numerai": INSTALLATION}), start()
    answers = {}
    for method, path in FORBIDDEN:
        command = path.format(ours=ours.id, other=other.id, volume=named_volume)
        answers[method, path] = request(proxy, method, command, "{}" if method in ("POST", "PUT") else None)
    assert {call: answer for call, answer in answers.items() if answer[0] != 403} == {}
    assert {
        call for call, answer in answers.items() if "socket proxy: " not in json.loads(answer[1])["message"]
    } == set()
    for container in (ours, other):
        container.reload()
        assert container.status == "running"
    assert "GET /info is not among the Docker calls that the pipeline makes" in answers["GET", "/info"][1]
    assert "it has no label numerai" in answers["DELETE", "/containers/{other}?force=1"][1]
    assert '"GET /info HTTP/1.1" 403' in proxy.log


def test_proxy_rejects_upgraded_connections(proxy: Proxy, start: Start) -> None:
    """Docker's exec and attach take the connection over: the proxy passes no data after an `Upgrade`."""
    ours = start(labels={"numerai": INSTALLATION})
    status, _ = request(proxy, "GET", "/_ping", Connection="Upgrade", Upgrade="tcp")
    assert status == 200
    status, _ = request(proxy, "POST", f"/containers/{ours.id}/exec", "{}", Connection="Upgrade", Upgrade="tcp")
    assert status == 403
    # a form in the body of a pull would count as parameters
    form = "fromSrc=http://127.0.0.1:1/x.tar&repo=evil"
    path = "/v1.41/images/create?fromImage=127.0.0.1:1/numerai-x&tag=y"
    status, text = request(proxy, "POST", path, form, Content_Type="application/x-www-form-urlencoded")
    assert status == 500
    assert "127.0.0.1:1/v2/" in text  # it was passed as a pull


def test_proxy_creates_a_container_like_the_operators(
    proxy: Proxy, run_folder: Path, toy: str, created: None, engine: docker.DockerClient
) -> None:
    body = good_container(proxy.data, toy)
    body["HostConfig"]["Mounts"].append({"Type": "bind", "Source": "/dev/null", "Target": "/x", "ReadOnly": True})
    body |= {"Hostname": None, "Tty": False, "Volumes": {}, "MacAddress": "", "NetworkingConfig": None}
    status, text = request(proxy, "POST", "/v1.41/containers/create", json.dumps(body))
    assert status == 201, text
    host = engine.containers.get(json.loads(text)["Id"]).attrs["HostConfig"]
    for name in (
        "NetworkMode",
        "ReadonlyRootfs",
        "CapDrop",
        "SecurityOpt",
        "Memory",
        "CpuQuota",
        "PidsLimit",
        "LogConfig",
        "Init",
    ):
        assert host[name] == body["HostConfig"][name]
    assert [mount["Source"] for mount in host["Mounts"]] == [str(proxy.data / "run"), "/dev/null"]
    assert [mount.get("ReadOnly", False) for mount in host["Mounts"]] == [False, True]


@pytest.mark.parametrize("count", [1, -1])
def test_proxy_passes_a_request_of_gpus(
    proxy: Proxy, run_folder: Path, toy: str, created: None, engine: docker.DockerClient, count: int
) -> None:
    # as the docker library describes it
    device = {"Driver": "", "Count": count, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    body = good_container(proxy.data, toy, DeviceRequests=[device])
    status, text = request(proxy, "POST", "/v1.41/containers/create", json.dumps(body))
    assert status == 201, text
    [passed] = engine.containers.get(json.loads(text)["Id"]).attrs["HostConfig"]["DeviceRequests"]
    assert (passed["Count"], passed["Capabilities"]) == (count, [["gpu"]])


BAD_HOST: list[dict[str, Any]] = [
    {"Privileged": True},
    {"privileged": True},
    {"NetworkMode": "host"},
    {"NetworkMode": "default"},
    {"NetworkMode": "container:x"},
    {"PidMode": "host"},
    {"IpcMode": "host"},
    {"UTSMode": "host"},
    {"UsernsMode": "host"},
    {"CgroupnsMode": "host"},
    {"Cgroup": "x"},
    {"CgroupParent": "/x"},
    {"Binds": ["/:/host"]},
    {"VolumesFrom": ["x"]},
    {"CapAdd": ["SYS_ADMIN"]},
    {"CapDrop": None},
    {"CapDrop": ["CHOWN"]},
    {"SecurityOpt": ["seccomp=unconfined"]},
    {"SecurityOpt": ["no-new-privileges", "apparmor=unconfined"]},
    {"SecurityOpt": None},
    {"ReadonlyRootfs": False},
    {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
    {"DeviceCgroupRules": ["a *:* rwm"]},
    {"DeviceRequests": [{"Count": -1}]},
    {"DeviceRequests": [{"Count": 0, "Capabilities": [["gpu"]]}]},
    {"DeviceRequests": [{"DeviceIDs": ["0"], "Capabilities": [["gpu"]]}]},
    {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu", "graphics"]]}]},
    {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]], "Driver": "cdi"}]},
    {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]], "Options": {"x": "y"}}]},
    {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}] * 2},
    {"GroupAdd": ["0"]},
    {"Sysctls": {"kernel.x": "1"}},
    {"Runtime": "other"},
    {"LogConfig": None},
    {"LogConfig": {"Type": "json-file"}},
    {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10g", "max-file": "3"}}},
    {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3", "tag": "x"}}},
    {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "tcp://example.org"}}},
    {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
    {"RestartPolicy": {"Name": "always"}},
    {"MaskedPaths": ["/nothing"]},
    {"Memory": 0},
    {"PidsLimit": -1},
    {"OomScoreAdj": -1000},
]
BAD_MOUNTS = [
    {"Type": "bind", "Source": "/", "Target": "/host"},
    {"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/x"},
    {"Type": "bind", "Source": "/dev/null", "Target": "/x", "ReadOnly": False},
    {"Type": "bind", "Source": "{data}", "Target": "/x"},
    {"Type": "bind", "Source": "{data}/run/../../..", "Target": "/x"},
    {"Type": "bind", "Source": "{data}-of-others", "Target": "/x"},
    {"Type": "bind", "source": "/", "Source": "{data}/run", "Target": "/x"},
    {"Type": "bind", "Source": "{data}/run", "Target": "/x", "BindOptions": {"Propagation": "rshared"}},
    {"Type": "volume", "Source": "postgres", "Target": "/x"},
    {"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/", "o": "bind"}}}},
    {"Type": "tmpfs", "Target": "/x"},
    "everything",
]
BAD_CONTAINER: list[dict[str, Any]] = [
    {"User": "0"},
    {"User": ""},
    {"User": "root"},
    {"User": "10001"},
    {"User": "10001:0"},
    {"User": f"10001:{SOCKET.stat().st_gid}"},
    {"User": "00:10001"},
    {"Labels": None},
    {"Labels": {"numerai": ""}},
    {"Image": None},
    {"HostConfig": None},
    {"hostconfig": {"Privileged": True}},
    {"Volumes": {"/x": {}}},
    {"ExposedPorts": {"80/tcp": {}}},
    {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}},
    {"Healthcheck": {"Test": ["CMD", "true"]}},
    {"Tty": True},
    {"Env": "all"},
]


def test_proxy_rejects_every_other_container(proxy: Proxy, run_folder: Path, toy: str, created: None) -> None:
    good = good_container(proxy.data, toy)
    bodies = [good_container(proxy.data, toy, **change) for change in BAD_HOST]
    bodies += [
        good_container(proxy.data, toy, Mounts=[json.loads(json.dumps(mount).replace("{data}", str(proxy.data)))])
        for mount in BAD_MOUNTS
    ]
    bodies += [copy.deepcopy(good) | change for change in BAD_CONTAINER]
    passed = []
    for body in bodies:
        status, text = request(proxy, "POST", "/v1.41/containers/create", json.dumps(body))
        if status != 403 or "socket proxy: " not in text:
            passed.append((body, status, text))
    assert passed == []


def test_proxy_names_the_reason_of_a_rejection(proxy: Proxy, toy: str) -> None:
    def report(body: dict[str, Any]) -> str:
        return request(proxy, "POST", "/v1.41/containers/create", json.dumps(body))[1]

    assert "HostConfig.Privileged of a container is not one of the keys" in report(
        good_container(proxy.data, toy, Privileged=True)
    )
    assert 'HostConfig.NetworkMode of a container is \\"host\\"; it must be \\"none\\"' in report(
        good_container(proxy.data, toy, NetworkMode="host")
    )
    mounts = [{"Type": "bind", "Source": "/etc", "Target": "/x"}]
    assert f"may mount folders and files of the data volume, {proxy.data}, and nothing else" in report(
        good_container(proxy.data, toy, Mounts=mounts)
    )


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"HostConfig": {}} {"HostConfig": {}}', "Image=x"])
def test_proxy_rejects_invalid_descriptions(proxy: Proxy, text: str) -> None:
    status, report = request(proxy, "POST", "/v1.41/containers/create", text)
    assert status in (400, 403)
    assert "socket proxy: " in report


def test_proxy_passes_only_the_validated_description(
    proxy: Proxy, run_folder: Path, toy: str, created: None, engine: docker.DockerClient
) -> None:
    """Go merges duplicate keys and ignores their case; neither passes a privilege."""
    good = json.dumps(good_container(proxy.data, toy))
    twice = '{"HostConfig": {"Privileged": true, "Binds": ["/:/host"]}, ' + good[1:]
    status, text = request(proxy, "POST", "/v1.41/containers/create", twice)
    assert status == 201, text
    host = engine.containers.get(json.loads(text)["Id"]).attrs["HostConfig"]
    assert (host["Privileged"], host["Binds"]) == (False, None)
    escaped = good.replace('"Memory"', '"Privile\\u0067ed": true, "Memory"')
    assert request(proxy, "POST", "/v1.41/containers/create", escaped)[0] == 403
    assert request(proxy, "POST", "/v1.41/containers/create", " " * 2**20 + good)[0] == 413


# ---- the proxy's container ----


def test_proxy_runs_unprivileged(proxy: Proxy) -> None:
    processes = proxy.container.top(ps_args="-eo pid,uid,args")["Processes"]
    assert {(user, command.split()[0]) for _, user, command in processes} == {("10001", "nginx:")}


@pytest.mark.parametrize("user", ["50000:50000", "50000", "50000:0"])
def test_proxy_can_require_one_user(
    start_proxy: StartProxy, tmp_path: Path, toy: str, created: None, user: str
) -> None:
    (tmp_path / "run").mkdir()
    with start_proxy(tmp_path, CONTAINER_USER=user) as strict:
        body = good_container(tmp_path, toy)
        status, text = request(strict, "POST", "/v1.41/containers/create", json.dumps(body))
        assert status == 403
        assert "50000:50000" in text
        body["User"] = "50000:50000"
        assert request(strict, "POST", "/v1.41/containers/create", json.dumps(body))[0] == 201


@pytest.mark.parametrize(
    ("environment", "group", "message"),
    [
        ({"ENGINE": "http://engine"}, True, "ENGINE=http://engine: neither unix:///path/of/the/socket nor tcp://host"),
        ({"ENGINE": "unix:///nowhere.sock"}, True, "there is no socket at /nowhere.sock"),
        ({"QUIET_SECONDS": "8d"}, True, "QUIET_SECONDS=8d: not a number of seconds"),
        ({"CONTAINER_USER": "0:0"}, True, "CONTAINER_USER=0:0: not of the form uid:gid, and never root"),
        ({}, False, "may not use /var/run/docker.sock of group"),
    ],
)
def test_proxy_start_names_an_invalid_setting(
    engine: docker.DockerClient, proxy_image: str, environment: dict[str, str], group: bool, message: str
) -> None:
    with pytest.raises(docker.errors.ContainerError) as refused:
        engine.containers.run(
            proxy_image,
            environment=environment,
            volumes=[f"{SOCKET}:{SOCKET}"],
            group_add=[str(SOCKET.stat().st_gid)] if group else [],
            remove=True,
        )
    assert refused.value.exit_status == 64
    assert message in str(refused.value)


class _Relay(socketserver.StreamRequestHandler):
    """Passes a connection to the engine, except that a request for its version gets no response."""

    ended: threading.Event

    def handle(self) -> None:
        first = self.connection.recv(65536)
        if b"/version" in first.split(b"\r\n", 1)[0]:
            self.ended.wait()
            return
        pass_on(self.connection, lambda _part: None, first)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Path]:
    """The socket of an engine that sometimes does not respond."""
    path = tmp_path / "relay.sock"
    ended = threading.Event()
    handler = type("Handler", (_Relay,), {"ended": ended})
    server = socketserver.ThreadingUnixStreamServer(str(path), handler)
    server.daemon_threads = True
    path.chmod(0o660)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield path
    ended.set()
    server.shutdown()
    thread.join()
    server.socket.close()


def test_proxy_keeps_the_log_stream_of_a_silent_training(
    start_proxy: StartProxy, tmp_path: Path, relay: Path, start: Start
) -> None:
    """The ordinary time limit is one second; a call that exceeds it proves that the log was silent for longer."""
    script = (
        "import pathlib, time\nprint('begin')\n"
        "while not pathlib.Path('/data/go').exists():\n  time.sleep(0.05)\nprint('end')"
    )
    training = start(script, labels={"numerai": INSTALLATION}, volumes=[f"{tmp_path}:/data:ro"])
    with start_proxy(tmp_path, relay, ORDINARY_SECONDS="1", QUIET_SECONDS="600") as proxy:
        client = docker.APIClient(base_url=proxy.address, version="1.41")
        training_id = str(training.id)
        log = client.logs(training_id, stream=True, follow=True)
        assert next(log) == b"begin\n"
        outcome: list[Any] = []
        waiting = threading.Thread(target=lambda: outcome.append(client.wait(training_id)))
        waiting.start()
        status, _ = request(proxy, "GET", "/version")
        assert status == 504
        assert waiting.is_alive()
        (tmp_path / "go").touch()
        assert list(log) == [b"end\n"]
        waiting.join(30)
        assert outcome[0]["StatusCode"] == 0


def test_proxy_closes_connections_of_disconnected_clients(proxy: Proxy, start: Start) -> None:
    training = start("import time\nprint('begin')\ntime.sleep(600)", labels={"numerai": INSTALLATION})

    def connections() -> int:
        listed: Any = proxy.container.exec_run(["bash", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c socket:"])
        return int(listed.output)

    before = connections()
    with contextlib.closing(http.client.HTTPConnection(proxy.host, PORT, timeout=60)) as client:
        client.request("GET", f"/containers/{training.id}/logs?stdout=1&follow=1")
        answer = client.getresponse()
        assert b"begin" in answer.read1()
        assert connections() == before + 2  # from the client, and to the engine
        answer.close()
    assert wait_until(lambda: connections() == before, 10)
