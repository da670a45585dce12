"""``python -m practice``: it starts, says where it is, and is gone when told to stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from practice.__main__ import main

ROOT = Path(__file__).parents[3]
TINY = ["--rows-per-era", "30", "--train-eras", "3", "--validation-eras", "15", "--features", "4", "6", "8"]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "practice", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_stops_at_once(tmp_path: Path, stop: signal.Signals) -> None:
    with start("--season-dir", str(tmp_path), "--today", "2026-08-15", *TINY) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            ready = re.fullmatch(r"practice season ready at (http://127\.0\.0\.1:\d+)\n", line)
            assert ready is not None
            address = ready.group(1)
            answer = requests.post(address, json={"query": "{ rounds(number: 0) { number } }"}, timeout=5)
            assert answer.json()["data"]["rounds"] == [{"number": 1334}]
            # the controls are for tests and have to be asked for
            assert requests.get(f"{address}/practice/requests", timeout=5).status_code == 404
            # a client that hangs on does not hold it up
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


def test_an_account_can_hand_in_predictions(tmp_path: Path) -> None:
    account = ["--account", "PUBLIC:s3cr3t-k3y", "--models", "alpha, beta"]
    with start("--season-dir", str(tmp_path), *account, *TINY) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            header = {"Authorization": "Token PUBLIC$s3cr3t-k3y"}
            query = {"query": "{ account { models { name } } }"}
            answer = requests.post(address, json=query, headers=header, timeout=5).json()
            assert [model["name"] for model in answer["data"]["account"]["models"]] == ["alpha", "beta"]
            standings = requests.get(f"{address}/practice/standings", timeout=5).json()
            assert [model["name"] for model in standings["models"]] == ["alpha", "beta"]
        finally:
            process.kill()


def test_help_names_every_option() -> None:
    with start("--help") as process:
        text = process.communicate(timeout=30)[0]
    for option in (
        "--port",
        "--host",
        "--season-dir",
        "--rows-per-era",
        "--train-eras",
        "--features",
        "--group-lean",
        "--seed",
        "--today",
        "--account",
        "--models",
    ):
        assert option in text
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows-per-era", "0"], "at least 1"),
        (["--features", "10", "5", "20"], "must grow"),
        (["--group-lean", "1"], "0.9"),
        (["--train-eras", "5000"], "do not fit"),
        (["--today", "2020-01-04"], "older than the season"),
        (["--today", "soon"], "invalid"),
        (["--account", "PUBLIC", "--models", "a"], "PUBLIC:SECRET"),
        (["--account", "PUBLIC:x"], "needs models"),
        (["--models", "a"], "give one"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--season-dir", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_port_in_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["--season-dir", str(tmp_path), "--port", str(taken.getsockname()[1]), *TINY])
    assert "in use" in capsys.readouterr().err.splitlines()[-1]
