"""``python -m practice``: start, options, mistakes and stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests

from launcher.simulator import READY
from practice.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TINY = ["--rows-per-era", "30", "--train-eras", "3", "--validation-eras", "15", "--features", "4", "6", "8"]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "practice", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_its_address_and_stops_on_a_signal(tmp_path: Path, stop: signal.Signals) -> None:
    with start("--season-dir", str(tmp_path), "--today", "2026-08-15", *TINY) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(READY)  # the launcher waits for it
            ready = re.fullmatch(r"simulator ready at (http://127\.0\.0\.1:\d+)\n", line)
            assert ready is not None
            address = ready.group(1)
            answer = requests.post(address, json={"query": "{ rounds(number: 0) { number } }"}, timeout=5)
            assert answer.json()["data"]["rounds"] == [{"number": 1334}]
            # the controls are for tests, and off by default
            assert requests.get(f"{address}/practice/requests", timeout=5).status_code == 404
            # a client with an unfinished request does not delay the stop
            host, port = address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
                began = time.monotonic()
                process.send_signal(stop)
                assert process.wait(timeout=5) == 0
                assert time.monotonic() - began < 3  # it takes about half a second; the machine may be busy
        finally:
            process.kill()
    assert len(list(tmp_path.glob("season-*/train.parquet"))) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_command_with_account_scopes_and_calendar_serves_them(tmp_path: Path) -> None:
    account = ["--account", "PUBLIC:s3cr3t-k3y", "--models", "alpha, beta", "--scopes", "read_user_info"]
    strict = ["--calendar", "strict", "--today", "2026-08-18T23:00", "--controls"]
    with start("--season-dir", str(tmp_path), *account, *strict, *TINY) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]

            def post(query: str) -> dict[str, Any]:
                header = {"Authorization": "Token PUBLIC$s3cr3t-k3y"}
                answer = requests.post(address, json={"query": query}, headers=header, timeout=5)
                found: dict[str, Any] = answer.json()
                return found

            models = post("{ account { models { name } } }")["data"]["account"]["models"]
            assert [model["name"] for model in models] == ["alpha", "beta"]
            (error,) = post("{ account { models { latestSubmissions { id } } } }")["errors"]
            assert error["message"] == "Insufficient permission for read_submission_info"
            # late on Tuesday the round of the day is over, and still the current one
            (found,) = post("{ rounds(number: 0) { number closeTime } }")["data"]["rounds"]
            assert found["number"] == 1335
            assert found["closeTime"] < "2026-08-18T14:11:00Z"
            standings = requests.get(f"{address}/practice/standings", timeout=5).json()
            assert [model["name"] for model in standings["models"]] == ["alpha", "beta"]
        finally:
            process.kill()


def test_command_with_size_v53_and_changes_generates_the_small_set(tmp_path: Path) -> None:
    arguments = ["--season-dir", str(tmp_path), "--today", "2026-08-15", "--size", "v5.3", *TINY]
    with start(*arguments) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(READY)
        finally:
            process.terminate()
        log = process.communicate(timeout=30)[1]
    assert "the files have the 4 features of the set small of 8: a run with a larger set" in log
    assert "generating train.parquet of round 1334" in log
    (train,) = tmp_path.glob("season-*/train.parquet")
    assert sum(name.startswith("feature_") for name in pq.read_schema(train).names) == 4
    # eras grow, to the given number of rows
    assert pq.ParquetFile(train).metadata.num_rows == sum([17, 20, 23])


def test_command_help_lists_every_option() -> None:
    with start("--help") as process:
        text = process.communicate(timeout=30)[0]
    for option in (
        "--port",
        "--host",
        "--season-dir",
        "--size",
        "--rows-per-era",
        "--train-eras",
        "--features",
        "--feature-set",
        "--group-lean",
        "--missing-share",
        "--seed",
        "--today",
        "--calendar",
        "--account",
        "--models",
        "--scopes",
    ):
        assert option in text
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows-per-era", "0"], "at least 1"),
        (["--features", "10", "5", "20"], "must grow"),
        (["--group-lean", "1"], "0.9"),
        (["--missing-share", "1"], "0 to .5"),
        (["--size", "v5"], "invalid choice"),
        (["--feature-set", "large"], "invalid choice"),
        (["--train-eras", "5000"], "do not fit"),
        (["--today", "2020-01-04"], "older than the season"),
        (["--today", "soon"], "invalid"),
        (["--account", "PUBLIC", "--models", "a"], "PUBLIC:SECRET"),
        (["--account", "PUBLIC:x"], "needs models"),
        (["--account", "PUBLIC:x", "--models", "a", "--scopes", "upload"], "unknown scope upload"),
        (["--models", "a"], "give one"),
        (["--calendar", "loose"], "invalid choice"),
    ],
)
def test_command_with_a_mistake_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--season-dir", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_command_with_a_port_in_use_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["--season-dir", str(tmp_path), "--port", str(taken.getsockname()[1]), *TINY])
    assert "in use" in capsys.readouterr().err.splitlines()[-1]
