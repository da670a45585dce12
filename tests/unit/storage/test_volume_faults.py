"""Full, read-only and foreign volumes, and flipped bytes: reported by their task, and repaired by the next run."""

from __future__ import annotations

import functools
import http.server
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from numerai_contract import outputs
from numerai_contract.embeddings import Embedding, read_embedding, write_embedding
from numerai_contract.exits import BadDataError, BadParameterError, MissingInputError, TryAgainError
from numerai_contract.predictions import write_predictions
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_pipeline.core.errors import BadInputError, DiskFullError, VolumeError
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dataset.csv_export import write_tournament, write_training_csv
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.leaderboard.static_page import write_static_page
from numerai_pipeline.models.predictions import validate_predictions
from numerai_pipeline.numerai_api.downloads import fetch
from numerai_pipeline.storage import disk
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import require_whole, verified_manifest, write_manifest
from tests.samples import ROOT
from tests.unit.dataset.raw_files import classic_dataset, csv_table, training_rows, v5_dataset
from tests.unit.dataset.unpacking import DATASET_FILES, Volume
from tests.volumes import NOBODY, flip_a_byte, foreign_volume, read_only, small_volume

LIKE_ANYBODY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
MIB = 2**20
PLENTY = 512 * MIB


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def many_rows(directory: Path) -> RawDataset:
    """Create an archive of a few megabytes with a low compression ratio."""
    generator = random.Random(3)
    rows = training_rows(eras=100, rows_per_era=60)
    for row in rows:
        row[3:6] = [f"{generator.random():.7f}" for _ in range(3)]
    return classic_dataset(directory, training=csv_table(rows))


class TestFullVolume:
    @pytest.mark.parametrize("dataset", [classic_dataset, v5_dataset])
    def test_unzip_without_space_fails_first_and_succeeds_with_space(
        self, tmp_path: Path, dataset: Callable[[Path], RawDataset]
    ) -> None:
        raw = dataset(tmp_path / "raw")
        with small_volume(tmp_path / "data", 4 * MIB) as volume:
            data = Volume(volume.directory / "data")
            with pytest.raises(
                DiskFullError, match=r"needs 6\d\.\d MB on the volume of .*, but only 4\.\d MB are free"
            ):
                data.unpack(raw)
            assert data.files() == []
            volume.resize(PLENTY)
            data.unpack(raw)
            assert all(verified_manifest(path) for path in (data.training, data.validation, data.live))

    def test_unzip_volume_full_while_writing_tables_leaves_no_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk, "RESERVED_BYTES", 0)
        raw = many_rows(tmp_path / "raw")
        tried = Volume(tmp_path / "tried")
        tried.unpack(raw)
        packed = tried.training.stat().st_size
        with small_volume(tmp_path / "data", PLENTY) as volume:
            # space for the two unpacked CSV files, but not for the tables
            text = 6_000 * len("n001000,era100,train,0.1234567,0.1234567,0.1234567,1") + 2_000
            volume.resize(text + packed // 2)
            data = Volume(volume.directory / "data")
            with pytest.raises(DiskFullError, match=r"no space is left on the volume of .*make room there"):
                data.unpack(raw)
            assert data.files() == []
            volume.resize(PLENTY)
            data.unpack(raw)
            assert data.training.read_bytes() == tried.training.read_bytes()

    def test_csv_export_volume_full_leaves_no_part(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = many_rows(tmp_path / "raw")
        with small_volume(tmp_path / "data", PLENTY) as volume:
            data = Volume(volume.directory / "data")
            dataset = data.unpack(raw).dataset
            before = files_in(volume.directory)
            # before: the reserve alone is larger than the free space
            filler = volume.fill(left=MIB)
            with pytest.raises(DiskFullError, match=r"writing training\.csv needs .* but only 1\.\d MB are free"):
                write_training_csv(dataset.layout)
            # while writing
            filler.unlink()
            monkeypatch.setattr(disk, "RESERVED_BYTES", 0)
            filler = volume.fill(left=150_000)
            with pytest.raises(DiskFullError, match="no space is left"):
                write_training_csv(dataset.layout)
            assert files_in(volume.directory) == sorted([*before, filler.name])
            assert verified_manifest(data.training)
            filler.unlink()
            assert verified_manifest(write_training_csv(dataset.layout))
            assert verified_manifest(write_tournament(dataset, data.run, "csv"))

    def test_download_volume_full_raises_and_leaves_no_part(self, tmp_path: Path) -> None:
        with (
            served(tmp_path / "web", {"data.csv": bytes(5 * MIB)}) as address,
            small_volume(tmp_path / "data", 4 * MIB) as volume,
        ):
            place = volume.directory / "data.csv"
            with pytest.raises(DiskFullError, match=f"no space is left on the volume of {volume.directory}"):
                fetch("data.csv", lambda: f"{address}/data.csv", place, timeout=5)
            assert files_in(volume.directory) == [".data.csv.lock"]
            volume.resize(PLENTY)
            fetch("data.csv", lambda: f"{address}/data.csv", place, timeout=5)
            assert place.stat().st_size == 5 * MIB

    def test_validate_predictions_volume_full_keeps_the_form_of_2018(self, tmp_path: Path) -> None:
        with small_volume(tmp_path / "data", 16 * MIB) as volume:
            ids = [f"n{number:09d}" for number in range(20_000)]
            tournament, predictions = volume.directory / "tournament.parquet", volume.directory / "svm.csv"
            pq.write_table(pa.table({"id": ids}), tournament)
            lines = "".join(f"{row_id},0.{place % 9 + 1}\n" for place, row_id in enumerate(ids))
            predictions.write_text(f"id,probability\n{lines}")
            filler = volume.fill(left=64 * 1024)
            before = files_in(volume.directory)
            with (
                pytest.raises(AirflowException, match="no space is left on the volume of") as caught,
                translate_errors(),
            ):
                validate_predictions(predictions, tournament)
            assert not isinstance(caught.value, AirflowFailException), "worth trying again"
            assert files_in(volume.directory) == before
            filler.unlink()
            validate_predictions(predictions, tournament)
            assert verified_manifest(predictions)

    @pytest.mark.parametrize("kind", ["predictions", "split"])
    def test_model_outputs_volume_full_keep_the_earlier_file(self, tmp_path: Path, kind: str) -> None:
        rows = 50_000
        ids = pa.chunked_array([[f"n{number:09d}" for number in range(rows)]])
        values = np.linspace(0.1, 0.9, rows)

        def write(shift: float) -> Path:
            if kind == "predictions":
                path = volume.directory / "svm.csv"
                write_predictions(path, ids, values + shift, "abc")
                return path
            likeness = (np.random.default_rng(1).random(rows) + shift).astype(np.float32)
            return write_split(volume.directory, ids, Split(likeness, np.arange(rows) % 2 == 0), "abc")

        with small_volume(tmp_path / "data", 16 * MIB) as volume:
            path = write(0.0)
            content = path.read_bytes()
            filler = volume.fill(left=100_000)
            before = files_in(volume.directory)
            with pytest.raises(TryAgainError, match=rf"{path}: the disk is full, nothing was written. Make room"):
                write(0.01)
            assert (path.read_bytes(), files_in(volume.directory)) == (content, before)
            assert outputs.is_finished(path, "abc")
            filler.unlink()
            write(0.01)
            assert path.read_bytes() != content
            assert outputs.is_finished(path, "abc")


class TestReadOnlyVolume:
    def test_unzip_read_only_volume_names_the_remedy(self, tmp_path: Path) -> None:
        raw, data = classic_dataset(tmp_path / "raw"), tmp_path / "data"
        data.mkdir()
        with (
            read_only(data),
            pytest.raises(VolumeError, match=rf"{data}/datasets: its volume is mounted read-only .*mount it"),
        ):
            Volume(data).unpack(raw)
        assert Volume(data).unpack(raw).live.rows

    def test_download_read_only_volume_names_the_remedy(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        with served(tmp_path / "web", {"data.csv": b"id\n"}) as address:
            with read_only(data), pytest.raises(VolumeError, match=rf"{data}\S*: its volume is mounted read-only"):
                fetch("data.csv", lambda: f"{address}/data.csv", data / "v5" / "data.csv", timeout=5)
            assert fetch("data.csv", lambda: f"{address}/data.csv", data / "v5" / "data.csv", timeout=5)

    def test_other_output_of_a_task_fails_without_retry(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        with (
            read_only(data),
            pytest.raises(AirflowFailException, match=rf"{data}/\S+: its volume is mounted read-only"),
            translate_errors(),
        ):
            write_static_page(DataLayout(data).run("1", "abc"))

    def test_container_read_only_volume_raises_bad_parameter(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "svm.csv"
        path.parent.mkdir()
        with read_only(path.parent):
            with pytest.raises(
                BadParameterError, match=f"{path}: its directory may not be written to .*Mount it writable"
            ):
                outputs.check_writable(path, "PREDICTING")
            with (
                pytest.raises(BadParameterError, match="may not be written to"),
                outputs.output(path, rows=1, columns=[], inputs=None) as part,
            ):
                part.write_text("x")
        outputs.check_writable(path, "PREDICTING")


class TestVolumeOfAnotherUser:
    def test_unzip_volume_of_another_user_names_owner_and_remedy(self) -> None:
        with foreign_volume() as data, tempfile.TemporaryDirectory(prefix="raw-") as raw_dir:
            raw = classic_dataset(Path(raw_dir))
            uid, owner = os.geteuid(), data.stat().st_uid
            owned = rf"{data} belongs to uid {owner}, mode 0555"
            expected_message = rf"{data}/datasets: uid {uid} has no permission .*{owned}.*chown -R {uid}"
            with pytest.raises(VolumeError, match=expected_message):
                Volume(data).unpack(raw)
            assert files_in(data) == []

    def test_download_volume_of_another_user_names_the_remedy(self, tmp_path: Path) -> None:
        with (
            served(tmp_path / "web", {"data.csv": b"id\n"}) as address,
            foreign_volume() as data,
            pytest.raises(VolumeError, match=rf"{data}/\S+: uid \d+ has no permission .*chown"),
        ):
            fetch("data.csv", lambda: f"{address}/data.csv", data / "v5" / "data.csv", timeout=5)

    @pytest.mark.parametrize(
        ("mode", "predicts", "code", "expected_message"),
        [
            (0o555, True, 64, r"{data}/svm\.csv: its directory may not be written to by uid {uid}"),
            (0o555, False, 64, r"STORING is '{data}', which may not be written to by uid {uid}"),
            (
                0o777,
                True,
                66,
                r"{data}/training\.parquet: it cannot be read by uid {uid} \(Permission denied\)",
            ),
        ],
    )
    def test_container_volume_of_another_user_exits_with_its_code(
        self, mode: int, predicts: bool, code: int, expected_message: str
    ) -> None:
        """The contract's entry point, without root's access to all files."""
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("needs root and setpriv: NOT TESTED here that a model reports its missing permission")
        with tempfile.TemporaryDirectory(prefix="volume-") as name:
            data = Path(name)
            operations = data / "operations"
            operations.mkdir()
            (operations / "svm_operation.py").write_text("def run(task):\n    task.training\n")
            (data / "training.parquet").write_bytes(b"secret")
            (data / "training.parquet").chmod(0o600)
            for path in (data, data / "training.parquet"):
                os.chown(path, NOBODY, NOBODY)
            data.chmod(mode)
            paths = {"TRAINING": "training.parquet", "TESTING": "training.parquet"}
            paths |= {"PREDICTING": "svm.csv"} if predicts else {}
            done = subprocess.run(
                [*LIKE_ANYBODY, sys.executable, "-m", "numerai_contract"],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT / "model_images" / "contract" / "src"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "OPERATIONS_DIR": str(operations),
                    "OPERATION": "svm",
                    "STORING": name,
                    **{variable: str(data / file) for variable, file in paths.items()},
                },
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == code, done.stdout + done.stderr
            assert re.search(expected_message.format(data=data, uid=os.getuid()), done.stdout.splitlines()[-1])


class TestFlippedBytes:
    """Flipped bytes in all kinds of files that tasks exchange."""

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
    @pytest.mark.parametrize(
        "name",
        [
            "training.parquet",
            "validation.parquet",
            "live.parquet",
            "tournament.parquet",
            "training.csv",
            "tournament.csv",
        ],
    )
    def test_table_with_flipped_byte_is_rejected_and_made_again(self, tmp_path: Path, name: str, share: float) -> None:
        raw, volume = classic_dataset(tmp_path / "raw"), Volume(tmp_path / "data")

        def write() -> None:
            dataset = volume.unpack(raw).dataset
            write_training_csv(dataset.layout)
            for table_format in ("parquet", "csv"):
                write_tournament(dataset, volume.run, table_format)

        write()
        found = {path.name: path for path in volume.data.root.rglob("*") if path.is_file() and path.suffix != ".lock"}
        # the time of its creation is in the metadata
        whole = {file: path.read_bytes() for file, path in found.items() if file != "dataset.json"}
        ages = {file: path.stat().st_mtime_ns for file, path in found.items()}
        path = found[name]
        flip_a_byte(path, share)
        with pytest.raises(
            BadDataError, match=rf"{name}: its content differs from its manifest .*`unzip` and run it again"
        ):
            Table(path)
        with pytest.raises(
            BadInputError, match=rf"{name}: its content does not match its manifest.*`unzip` and run it again"
        ):
            require_whole(path, "`unzip`")
        write()
        assert {file: found[file].read_bytes() for file in whole} == whole
        made = {file for file, path in found.items() if path.stat().st_mtime_ns != ages[file]}
        of_dataset = {*DATASET_FILES, "training.csv", "training.csv.manifest.json"}
        expected = of_dataset if name in ("training.parquet", "validation.parquet") else {name, f"{name}.manifest.json"}
        assert made == expected

    @pytest.mark.parametrize("role", ["train", "validation", "live", "features", "archive"])
    def test_unzip_download_with_flipped_byte_is_rejected(self, tmp_path: Path, role: str) -> None:
        raw = classic_dataset(tmp_path / "raw") if role == "archive" else v5_dataset(tmp_path / "raw")
        volume = Volume(tmp_path / "data")
        content = raw.path(role).read_bytes()
        flip_a_byte(raw.path(role))
        with pytest.raises(BadInputError, match=f"{raw.path(role)}: its content differs from the download.*`download`"):
            volume.unpack(raw)
        assert volume.files() == (DATASET_FILES if role == "live" else [])
        raw.path(role).write_bytes(content)
        assert volume.unpack(raw).live.rows

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
    @pytest.mark.parametrize("kind", ["split", "map"])
    def test_preprocessing_output_with_flipped_byte_is_rejected(self, tmp_path: Path, kind: str, share: float) -> None:
        volume = Volume(tmp_path / "data")
        volume.unpack(classic_dataset(tmp_path / "raw"))
        table = Table(volume.training)
        rows = len(table)
        if kind == "split":
            path = write_split(tmp_path, table.ids, Split(np.zeros(rows, np.float32), np.arange(rows) % 2 == 0), "abc")
            read: Callable[[], object] = lambda: read_split(tmp_path, table)  # noqa: E731
        else:
            path = write_embedding(tmp_path, Embedding(30), table.ids, np.zeros((rows, 2), np.float32), "abc")
            read = lambda: read_embedding(tmp_path, Embedding(30), table)  # noqa: E731
        read()
        flip_a_byte(path, share)
        with pytest.raises(BadDataError, match=rf"{path.name}: its content differs from its manifest .* Clear"):
            read()
        assert not outputs.is_finished(path, "abc")
        path.unlink()
        with pytest.raises(MissingInputError, match=rf"{path}: the file does not exist"):
            read()

    def test_validate_predictions_damaged_tournament_names_the_table(self, tmp_path: Path) -> None:
        predictions, tournament = tmp_path / "svm.csv", tmp_path / "tournament.parquet"
        pq.write_table(pa.table({"id": ["aaaa", "bbbb"]}), tournament, compression="none", use_dictionary=False)
        write_manifest(tournament, rows=2, columns=["id"])
        tournament.write_bytes(tournament.read_bytes().replace(b"aaaa", b"aaab"))
        predictions.write_text("id,prediction\naaaa,0.2\nbbbb,0.6\n")
        with pytest.raises(BadInputError, match=r"tournament\.parquet: its content does not match its manifest"):
            validate_predictions(predictions, tournament)


def test_validate_predictions_rejected_file_is_not_finished(tmp_path: Path) -> None:
    """A container may have written a valid manifest: the next attempt must not treat the file as finished."""
    predictions, tournament = tmp_path / "svm.csv", tmp_path / "tournament.parquet"
    pq.write_table(pa.table({"id": ["a", "b"]}), tournament)
    predictions.write_text("id,prediction\na,0.2\nb,nan\n")
    write_manifest(predictions, rows=2, inputs="abc")
    with pytest.raises(BadInputError, match=r"svm\.csv: row 2 \(id b\) has no prediction"):
        validate_predictions(predictions, tournament)
    assert verified_manifest(predictions) is None
    assert predictions.exists(), "kept for inspection"


def test_translate_disk_errors_unrelated_error_is_unchanged() -> None:
    with pytest.raises(FileNotFoundError), translate_errors():
        Path("/nowhere/at/all").read_bytes()
    with pytest.raises(ConnectionRefusedError), translate_errors():
        raise ConnectionRefusedError(13, "refused")


class served:  # noqa: N801 - a context manager that reads like one
    """Serve files over HTTP without a content length."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)

        class Silent(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def send_header(self, keyword: str, value: str) -> None:
                if keyword != "Content-Length":
                    super().send_header(keyword, value)

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Silent, directory=str(folder))
        )

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
