from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from numerai_pipeline.containers.data_volume import (
    DataVolume,
    chown_for,
    container_user,
    host_folder,
    installation_id,
    own_container_id,
)
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings

CONTAINER = "4f" * 32
MOUNT_INFO = f"""\
612 598 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X
640 612 254:0 /var/lib/docker/containers/{CONTAINER}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
"""


def test_host_path_on_the_volume_is_translated() -> None:
    volume = DataVolume(Path("/opt/data"), PurePosixPath("/srv/numerai"))
    assert volume.host_path(Path("/opt/data/rounds/1")) == PurePosixPath("/srv/numerai/rounds/1")


def test_host_path_outside_the_volume_raises_value_error() -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        DataVolume(Path("/opt/data"), PurePosixPath("/srv")).host_path(Path("/opt/other"))


def test_own_container_id_in_a_container_returns_its_id(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNT_INFO)
    assert own_container_id(tmp_path / "mountinfo") == CONTAINER


def test_own_container_id_on_a_host_is_none(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    assert own_container_id(tmp_path / "mountinfo") is None
    assert own_container_id(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("/opt/data", "/srv/data"),
        ("/opt/data/numerai", "/srv/data/numerai"),
        ("/opt/data/deep/numerai", "/srv/deep/numerai"),
    ],
)
def test_host_folder_nested_mounts_use_the_nearest(inside: str, expected: str) -> None:
    mounts = [
        {"Source": "/srv/data", "Destination": "/opt/data"},
        {"Source": "/srv/deep", "Destination": "/opt/data/deep"},
        {"Source": "/srv/other", "Destination": "/opt/database"},
    ]
    assert host_folder(Path(inside), mounts) == PurePosixPath(expected)


def test_host_folder_without_mount_lists_the_mounts() -> None:
    with pytest.raises(BadInputError, match=r"/opt/data is not on a volume .*mounted there: /opt/logs"):
        host_folder(Path("/opt/data"), [{"Source": "/srv", "Destination": "/opt/logs"}])


def test_installation_id_concurrent_calls_return_one_id(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: installation_id(tmp_path), range(16)))
    assert len(ids) == 1
    assert installation_id(tmp_path) in ids
    assert [path.name for path in tmp_path.iterdir()] == [".installation"]
    assert installation_id(tmp_path / "another") not in ids


def test_container_user_of_root_is_unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert container_user(load_settings()) == "10001:10001"
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    assert container_user(load_settings()) == "1234:100"


@pytest.mark.parametrize(("user", "expected"), [("1234", "1234:1234"), ("1234:0", "1234:1234"), ("1234:5", "1234:5")])
def test_container_user_in_group_root_has_its_own_group(
    monkeypatch: pytest.MonkeyPatch, user: str, expected: str
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 50000)
    monkeypatch.setattr(os, "getgid", lambda: 0)
    assert container_user(load_settings()) == "50000:50000"
    load_settings.cache_clear()
    monkeypatch.setenv("NUMERAI_CONTAINER_USER", user)
    assert container_user(load_settings()) == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_chown_for_folder_belongs_to_the_containers_user(tmp_path: Path) -> None:
    chown_for("10001:10002", tmp_path / "run")
    status = (tmp_path / "run").stat()
    assert (status.st_uid, status.st_gid) == (10001, 10002)
