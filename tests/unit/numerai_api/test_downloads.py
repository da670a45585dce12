"""Downloads against a real server that misbehaves: a correct file, or a named error, and never a wrong file."""

from __future__ import annotations

import functools
import http.server
import json
import logging
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

from numerai_pipeline.core.errors import BadInputError, DiskFullError, NetworkError, NotFoundError, ProtocolError
from numerai_pipeline.dataset.file_checks import ContentError
from numerai_pipeline.dataset.raw import RawFile
from numerai_pipeline.numerai_api.downloads import fetch, fetch_archive
from numerai_pipeline.numerai_api.http import ServerBusyError
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import (
    Manifest,
    discard,
    file_sha256,
    manifest_path,
    read_manifest,
    verified_manifest,
)
from practice.faults import Fault, Kind, changed_content
from practice.model import SeasonSize
from practice.season import Season
from practice.server import PracticeServer, running

SIZE = SeasonSize(rows_per_era=100, train_eras=20, validation_eras=15, small=10, medium=20, all_features=30)
QUICK = RetryPolicy(attempts=3, initial_delay=0.001, max_delay=0.002)
TRAIN, FEATURES = "v5.3/train.parquet", "v5.3/features.json"
ALWAYS = 1000


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeServer]:
    with running(Season(tmp_path_factory.mktemp("season"), SIZE)) as server:
        yield server


@pytest.fixture
def server(shared_server: PracticeServer) -> PracticeServer:
    shared_server.faults.clear()
    shared_server.requests.clear()
    return shared_server


def presigner(server: PracticeServer, name: str) -> Callable[[], str]:
    def presign() -> str:
        query = f'{{ dataset(filename: "{name}") }}'
        address: str = requests.post(server.address, json={"query": query}, timeout=5).json()["data"]["dataset"]
        return address

    return presign


def get(server: PracticeServer, name: str, folder: Path, **options: Any) -> RawFile:
    options = {"timeout": 0.5, "policy": QUICK, **options}
    return fetch(name, presigner(server, name), folder / Path(name).name, **options)


def truth(server: PracticeServer, name: str) -> bytes:
    return server.season.file(name, server.season.current_round().number).read_bytes()


def file_requests(server: PracticeServer) -> list[dict[str, Any]]:
    return server.requests.entries(on="file")


def verified(path: Path) -> Manifest:
    manifest = verified_manifest(path)
    assert manifest is not None
    return manifest


def fault(kind: Kind, **options: Any) -> Fault:
    return Fault(kind=kind, on="file", **options)


PETIT = ("small", "petit")

# what goes wrong → the error it ends in, or None for the correct file
TABLE: dict[str, tuple[list[Fault], type[Exception] | None]] = {
    "nothing": ([], None),
    "403 once": ([fault("status", status=403)], None),
    "403 for ever": ([fault("status", status=403, count=ALWAYS)], NetworkError),
    "404": ([fault("status", status=404)], NotFoundError),
    "400 for ever": ([fault("status", status=400, count=ALWAYS)], ProtocolError),
    "429 once": ([fault("status", status=429)], None),
    "429 for ever": ([fault("status", status=429, count=ALWAYS)], ServerBusyError),
    "503 twice": ([fault("status", status=503, count=2)], None),
    "503 for ever": ([fault("status", status=503, count=ALWAYS)], NetworkError),
    "an HTML page once": ([fault("html")], None),
    "an HTML page for ever": ([fault("html", count=ALWAYS)], NetworkError),
    "slow once": ([fault("delay", seconds=0.7)], None),
    "slow for ever": ([fault("delay", seconds=0.7, count=ALWAYS)], NetworkError),
    "broken off once": ([fault("truncated")], None),
    "broken off at once, for ever": ([fault("truncated", keep=0, count=ALWAYS)], NetworkError),
    "broken off often, but further each time": ([fault("truncated", keep=2**14, count=ALWAYS)], None),
    "broken off often, and no ranges": (
        [fault("truncated", keep=2**14, count=ALWAYS), fault("ignore_range", count=ALWAYS)],
        NetworkError,
    ),
    "resumed with 503": ([fault("truncated"), fault("status", status=503, ranges=True)], None),
    "resumed with 416": ([fault("truncated"), fault("status", status=416, ranges=True)], None),
    "resumed with an HTML page": ([fault("truncated"), fault("html", ranges=True)], None),
    "resumed without ranges": ([fault("truncated"), fault("ignore_range", ranges=True)], None),
    "resumed with another range": ([fault("truncated"), fault("wrong_range", ranges=True)], None),
    "resumed with another content": (
        [fault("truncated"), fault("changed", ranges=True), fault("ignore_if_range", ranges=True)],
        None,
    ),
    "resumed without an ETag": ([fault("truncated"), fault("no_etag", count=ALWAYS)], None),
    "no ETag": ([fault("no_etag")], None),
    "damaged content once": ([fault("changed")], None),
    "damaged content for ever": ([fault("changed", count=ALWAYS)], ContentError),
}


@pytest.mark.parametrize(("faults", "error"), TABLE.values(), ids=TABLE.keys())
def test_fetch_each_fault_gives_the_correct_file_or_its_error(
    server: PracticeServer, tmp_path: Path, faults: list[Fault], error: type[Exception] | None
) -> None:
    expected = truth(server, TRAIN)
    server.faults.add(*faults)
    path = tmp_path / "train.parquet"
    if error is None:
        raw = get(server, TRAIN, tmp_path)
        assert path.read_bytes() == expected
        assert raw.path == str(path)
        assert raw.sha256 == file_sha256(path) == verified(path).sha256
    else:
        with pytest.raises(error, match=r"train\.parquet") as raised:
            get(server, TRAIN, tmp_path)
        assert "signature" not in str(raised.value)
        assert not path.exists()
        assert not manifest_path(path).exists()
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_fetch_connection_refused_raises_network_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    address = f"http://127.0.0.1:{port}/file?signature=secret"
    with pytest.raises(NetworkError, match="refused") as raised:
        fetch(TRAIN, lambda: address, tmp_path / "train.parquet", timeout=0.5, policy=QUICK)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_fetch_truncated_reply_is_resumed_at_its_end(server: PracticeServer, tmp_path: Path) -> None:
    server.faults.add(fault("truncated", keep=20_000))
    get(server, TRAIN, tmp_path)
    first, second = file_requests(server)
    assert (first["range"], second["range"]) == (None, "bytes=20000-")
    assert second["if_range"].startswith('"')


def test_fetch_content_changed_during_download_starts_again(server: PracticeServer, tmp_path: Path) -> None:
    changed = changed_content(truth(server, FEATURES), PETIT)
    server.faults.add(fault("truncated", keep=100), fault("changed", ranges=True, swap=PETIT))
    get(server, FEATURES, tmp_path)
    assert (tmp_path / "features.json").read_bytes() == changed
    assert [entry["range"] for entry in file_requests(server)] == [None, "bytes=100-"]


def test_fetch_server_ignoring_if_range_starts_again(server: PracticeServer, tmp_path: Path) -> None:
    other = ("target_ender_20", "target_other_20")  # behind the break: half and half would be good JSON
    server.faults.add(
        fault("truncated", keep=100),
        fault("changed", ranges=True, swap=other),
        fault("ignore_if_range", ranges=True),
    )
    get(server, FEATURES, tmp_path)
    assert (tmp_path / "features.json").read_bytes() == truth(server, FEATURES)
    assert [entry["range"] for entry in file_requests(server)] == [None, "bytes=100-", None]


def test_fetch_wrong_range_in_reply_is_not_used(server: PracticeServer, tmp_path: Path) -> None:
    server.faults.add(fault("truncated"), fault("wrong_range", ranges=True))
    path = tmp_path / "train.parquet"
    fetch("train.csv", presigner(server, TRAIN), path, timeout=0.5, policy=QUICK)  # no check reads the content
    assert path.read_bytes() == truth(server, TRAIN)


def test_fetch_shorter_new_content_removes_the_earlier_bytes(tmp_path: Path) -> None:
    replies = [
        b'HTTP/1.1 200 OK\r\nETag: "long"\r\nContent-Length: 2000\r\n\r\n' + b"a" * 1000,
        b'HTTP/1.1 200 OK\r\nETag: "short"\r\nContent-Length: 500\r\n\r\n' + b"b" * 500,
    ]

    def serve(listening: socket.socket) -> None:
        for reply in replies:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        fetch("x.csv", lambda: address, tmp_path / "x.csv", timeout=1, policy=QUICK)
    assert (tmp_path / "x.csv").read_bytes() == b"b" * 500


def test_fetch_without_etag_starts_again(server: PracticeServer, tmp_path: Path) -> None:
    server.faults.add(fault("truncated"), fault("no_etag", count=ALWAYS))
    get(server, TRAIN, tmp_path)
    assert [entry["range"] for entry in file_requests(server)] == [None, None]


def test_fetch_manifest_has_rows_columns_and_origin(server: PracticeServer, tmp_path: Path) -> None:
    get(server, TRAIN, tmp_path, about={"name": TRAIN})
    manifest = read_manifest(tmp_path / "train.parquet")
    assert manifest is not None
    assert manifest.rows == 2000
    assert manifest.columns[:2] == ["era", "data_type"]
    assert manifest.columns[-1] == "id"
    assert manifest.about["name"] == TRAIN
    assert manifest.about["etag"].startswith('"')


def test_fetch_unchanged_file_is_not_downloaded_again(server: PracticeServer, tmp_path: Path) -> None:
    first = get(server, TRAIN, tmp_path)
    modified = (tmp_path / "train.parquet").stat().st_mtime_ns
    assert get(server, TRAIN, tmp_path) == first
    assert (tmp_path / "train.parquet").stat().st_mtime_ns == modified


def test_fetch_unchanged_file_updates_the_time_of_its_manifest(server: PracticeServer, tmp_path: Path) -> None:
    get(server, TRAIN, tmp_path)
    manifest = manifest_path(tmp_path / "train.parquet")
    os.utime(manifest, (0, 0))
    get(server, TRAIN, tmp_path)
    assert manifest.stat().st_mtime > 0


def test_fetch_changed_content_of_equal_size_is_downloaded_again(server: PracticeServer, tmp_path: Path) -> None:
    get(server, FEATURES, tmp_path)
    server.faults.add(fault("changed", swap=PETIT, count=ALWAYS))
    raw = get(server, FEATURES, tmp_path)
    content = (tmp_path / "features.json").read_bytes()
    assert content == changed_content(truth(server, FEATURES), PETIT)
    assert raw.sha256 == verified(tmp_path / "features.json").sha256


def damage(path: Path) -> None:
    path.write_bytes(changed_content(path.read_bytes(), None))


@pytest.mark.parametrize(
    "spoil",
    [
        damage,
        discard,
        lambda path: manifest_path(path).unlink(),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: manifest_path(path).write_text("{"),
    ],
    ids=["damaged", "gone", "no manifest", "only a manifest", "empty", "broken manifest"],
)
def test_fetch_damaged_file_is_downloaded_again(
    server: PracticeServer, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    get(server, TRAIN, tmp_path)
    spoil(tmp_path / "train.parquet")
    get(server, TRAIN, tmp_path)
    assert (tmp_path / "train.parquet").read_bytes() == truth(server, TRAIN)
    assert verified_manifest(tmp_path / "train.parquet")


def test_fetch_without_etag_or_with_other_origin_downloads_again(server: PracticeServer, tmp_path: Path) -> None:
    get(server, TRAIN, tmp_path, about={"name": "other"})
    get(server, TRAIN, tmp_path, about={"name": TRAIN})
    assert len(file_requests(server)) == 2
    server.faults.add(fault("no_etag", count=ALWAYS))
    get(server, TRAIN, tmp_path, about={"name": TRAIN})
    assert len(file_requests(server)) == 4  # asked, and downloaded
    assert (tmp_path / "train.parquet").read_bytes() == truth(server, TRAIN)


def test_fetch_server_failure_raises_and_keeps_the_old_file(server: PracticeServer, tmp_path: Path) -> None:
    first = get(server, TRAIN, tmp_path)
    server.faults.add(fault("status", count=ALWAYS))
    with pytest.raises(NetworkError):
        get(server, TRAIN, tmp_path)
    assert verified(tmp_path / "train.parquet").sha256 == first.sha256


def test_fetch_invalid_new_content_raises_and_keeps_the_old_file(server: PracticeServer, tmp_path: Path) -> None:
    first = get(server, FEATURES, tmp_path)
    server.faults.add(fault("changed", swap=('"small"', "{small}"), count=ALWAYS))
    with pytest.raises(ContentError, match="not JSON"):
        get(server, FEATURES, tmp_path)
    assert verified(tmp_path / "features.json").sha256 == first.sha256
    assert not list(tmp_path.glob(".*.part"))


def test_fetch_leftover_of_a_killed_download_is_removed(server: PracticeServer, tmp_path: Path) -> None:
    (tmp_path / ".train.parquet.abc123.part").write_bytes(b"half")
    get(server, TRAIN, tmp_path)
    assert not list(tmp_path.glob(".*.part"))


def test_fetch_concurrent_tasks_download_the_file_once(
    server: PracticeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.add(fault("delay", seconds=0.2))
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: get(server, TRAIN, tmp_path), range(4)))
    assert len(set(files)) == 1
    assert (tmp_path / "train.parquet").read_bytes() == truth(server, TRAIN)
    assert sum("downloaded in" in message for message in caplog.messages) == 1
    assert any("waiting" in message for message in caplog.messages)


def test_fetch_without_file_locks_concurrent_downloads_are_correct(
    server: PracticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_arguments: object) -> NoReturn:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("numerai_pipeline.storage.locks.fcntl.flock", no_locks)
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: get(server, TRAIN, tmp_path), range(4)))
    assert len(set(files)) == 1
    assert (tmp_path / "train.parquet").read_bytes() == truth(server, TRAIN)
    assert not list(tmp_path.glob(".*.part"))


def test_fetch_logs_size_and_speed(server: PracticeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        get(server, TRAIN, tmp_path)
    assert any("MB downloaded in" in message for message in caplog.messages)


def test_fetch_file_larger_than_the_disk_raises_in_advance(server: PracticeServer, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk: NOT TESTED here that a full disk is seen in advance")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], check=False)
    if mounted.returncode != 0:
        pytest.skip("cannot mount a small disk here: NOT TESTED that a full disk is seen in advance")
    try:
        with pytest.raises(DiskFullError, match=r"needs [\d.]+ MB on the volume of .*, but only 0\.[56] MB are free"):
            get(server, TRAIN, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".train.parquet.lock"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_fetch_disk_full_during_download_leaves_no_part(server: PracticeServer, tmp_path: Path) -> None:
    # in a separate process, which may not write files of more than 20 kB
    code = (
        "import sys; from pathlib import Path; from numerai_pipeline.numerai_api.downloads import fetch\n"
        "fetch('train.parquet', lambda: sys.argv[1], Path(sys.argv[2]), timeout=5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, presigner(server, TRAIN)(), str(tmp_path / "train.parquet")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert "DiskFullError" in last
    assert f"no space is left on the volume of {tmp_path}" in last
    assert [path.name for path in tmp_path.iterdir()] == [".train.parquet.lock"]


def test_downloads_module_imports_no_heavy_libraries() -> None:
    api = "numerai_pipeline.numerai_api"
    code = f"import sys, {api}.datasets, {api}.account; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    modules = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"pyarrow", "numerapi", "pandas", "docker", "airflow"} & set(modules.stdout.split())


# archives


@pytest.fixture
def zips(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Folder of a plain web server, with a good zip, a damaged one and none."""
    folder = tmp_path / "web"
    folder.mkdir()
    with zipfile.ZipFile(folder / "good.zip", "w") as archive:
        archive.writestr("numerai_training_data.csv", "id,era\n" * 1000)
    content = bytearray((folder / "good.zip").read_bytes())
    content[60] ^= 1
    (folder / "damaged.zip").write_bytes(content)
    (folder / "none.zip").write_text("no zip")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_fetch_archive_local_file_is_used_in_place(zips: tuple[Path, str], tmp_path: Path) -> None:
    good = zips[0] / "good.zip"
    raw = fetch_archive(str(good), DataLayout(tmp_path / "data"), 1)
    assert (raw.path, raw.sha256) == (str(good), file_sha256(good))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.zip", "no such file"),
        ("none.zip", "not a readable zip"),
        ("damaged.zip", "damaged"),
        ("", "no such file"),
    ],
)
def test_fetch_archive_invalid_local_file_names_path_and_remedy(
    zips: tuple[Path, str], tmp_path: Path, name: str, reason: str
) -> None:
    path = zips[0] / name
    with pytest.raises(BadInputError, match=rf"{path}: .*{reason}.*absolute path"):
        fetch_archive(str(path), DataLayout(tmp_path), 1)


def test_fetch_archive_relative_path_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not an absolute path"):
        fetch_archive("data/good.zip", DataLayout(tmp_path), 1)


def test_fetch_archive_address_is_downloaded_and_verified(zips: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = zips
    layout = DataLayout(tmp_path / "data")
    raw = fetch_archive(f"{address}/good.zip?token=secret", layout, 1, policy=QUICK)
    assert Path(raw.path).read_bytes() == (folder / "good.zip").read_bytes()
    assert Path(raw.path).is_relative_to(layout.downloads("archive"))
    assert Path(raw.path).name == "good.zip"
    manifest = read_manifest(Path(raw.path))
    assert manifest is not None
    assert "secret" not in json.dumps(manifest.about)
    other = fetch_archive(f"{address}/./good.zip", layout, 1, policy=QUICK)
    assert other.path != raw.path


@pytest.mark.parametrize(
    ("name", "error"), [("damaged.zip", ContentError), ("none.zip", ContentError), ("missing.zip", NotFoundError)]
)
def test_fetch_archive_address_without_valid_zip_leaves_no_file(
    zips: tuple[Path, str], tmp_path: Path, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=name):
        fetch_archive(f"{zips[1]}/{name}", DataLayout(tmp_path / "data"), 1, policy=QUICK)
    left = [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert left == [f".{name}.lock"]


def test_fetch_archive_remote_address_must_be_https(tmp_path: Path) -> None:
    for address in ("http://example.com/x.zip", "ftp://example.com/x.zip", "file:///etc/passwd"):
        with pytest.raises(BadInputError, match="only https"):
            fetch_archive(address, DataLayout(tmp_path), 1)
