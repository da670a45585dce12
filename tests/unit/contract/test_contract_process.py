"""The real process: its last line, its exit code, its heartbeat, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from numerai_contract import outputs

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterator

Columns = dict[str, Any]
Contract = Callable[..., "subprocess.Popen[str]"]
Writer = Callable[..., Path]

# holds Python's lock, as some native code does
HOLD_THE_LOCK = """
    import ctypes
    def hold():
        ctypes.PyDLL(None).sleep(600)
"""


def _end(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    printed, errors = process.communicate(timeout=30)
    # one stream only, or the order of lines would be undefined
    assert errors == ""
    return process.returncode, printed.splitlines()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return (line.rstrip("\n") for line in process.stdout)


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    return next(line for line in _lines(process) if text in line)


def test_main_successful_operation_exits_with_0(contract: Contract) -> None:
    code, lines = _end(contract({"hello": "def run(task): task.progress.log('hello')"}, OPERATION="hello"))
    assert (code, lines) == (0, ["hello"])


def test_help_lists_variables_operations_and_exit_codes(contract: Contract) -> None:
    code, lines = _end(contract({"svm": "", "xgboost": "", "_shared": ""}, "--help"))
    text = "\n".join(lines)
    assert code == 0
    assert "this image: svm, xgboost)" in text
    for term in ("TRAINING", "PREDICTING", "MEMORY_LIMIT", "--self-test", "71  not enough memory"):
        assert term in text


@pytest.mark.parametrize(
    ("environment", "arguments", "last_line"),
    [
        ({}, [], "FAILED (64, bad parameters): OPERATION is not set"),
        ({"OPERATION": "svn"}, [], "FAILED (64, bad parameters): OPERATION is 'svn': this image has good, svm."),
        ({"OPERATION": "_shared"}, [], "OPERATION is '_shared': this image has good, svm."),
        ({"OPERATION": "../svm"}, [], "OPERATION is '../svm': this image has good, svm."),
        ({"OPERATION": "svm", "SEED": "x"}, [], "FAILED (64, bad parameters): SEED is 'x': allowed is a whole number"),
        ({"OPERATION": "svm"}, ["--selftest"], "FAILED (64, bad parameters): unrecognized arguments: --selftest"),
        ({"OPERATION": "svm", "HEARTBEAT": "0"}, [], "HEARTBEAT is '0'"),
    ],
)
def test_main_bad_parameters_exit_with_64(
    contract: Contract, environment: dict[str, str], arguments: list[str], last_line: str
) -> None:
    operations = {"svm": "def run(task): pass", "good": "def run(task): pass", "_shared": ""}
    code, lines = _end(contract(operations, *arguments, **environment))
    assert code == 64
    assert len(lines) == 1
    assert last_line in lines[0]


@pytest.mark.parametrize(
    ("body", "code", "last_line", "traceback"),
    [
        (
            "raise exits.BadDataError('a.parquet: column\\n  x')",
            65,
            "FAILED (65, bad data): a.parquet: column x",
            False,
        ),
        ("task.training", 66, "training.parquet: the file does not exist. Run the task", False),
        ("raise exits.ModelFailureError('constant')", 69, "FAILED (69, no usable model): constant", False),
        (
            "{}['x']",
            70,
            "FAILED (70, the operation failed): KeyError: 'x'. This looks like a bug: see the traceback",
            True,
        ),
        ("raise MemoryError", 71, "the memory of 512 MiB was not enough. Give the model more memory in", False),
        ("raise RuntimeError('std::bad_alloc')", 71, "(std::bad_alloc)", False),
        ("import numpy; numpy.empty(1 << 45)", 71, "FAILED (71, not enough memory): the memory of 512 MiB", False),
        (
            "open('/dev/full', 'wb', 0).write(b'x')",
            75,
            "FAILED (75, try again later): a file without a name: the disk",
            False,
        ),
        ("raise OSError(28, 'full', '/data/x')", 75, "/data/x: the disk is full. Make room", False),
        ("import sys; sys.exit(3)", 70, "SystemExit: 3", True),
        ("import os; os._exit(3)", 70, "exited with code 3 while thinking, without an error message", False),
        ("import os; os.kill(os.getpid(), 11)", 70, "a library crashed with SIGSEGV while thinking", False),
        ("import os; os.kill(os.getpid(), 9)", 71, "it was killed, most likely by the system, while thinking", False),
    ],
)
def test_main_failing_operation_exits_with_code_and_one_line(
    contract: Contract, tmp_path: Path, body: str, code: int, last_line: str, *, traceback: bool
) -> None:
    operation = f"""
    from numerai_contract import exits

    def run(task):
        with task.progress.step("thinking"):
            {body}
    """
    training = str(tmp_path / "training.parquet")
    found, lines = _end(contract({"stub": operation}, OPERATION="stub", MEMORY_LIMIT="512", TRAINING=training))
    assert found == code
    assert last_line in lines[-1]
    assert lines[-1].startswith(f"FAILED ({code}, ")
    assert any("Traceback" in line for line in lines) is traceback


def test_main_operation_with_import_error_exits_with_70(contract: Contract) -> None:
    code, lines = _end(contract({"stub": "import no_such_library"}, OPERATION="stub"))
    assert code == 70
    assert "ModuleNotFoundError: No module named 'no_such_library'" in lines[-1]


def test_main_native_output_precedes_the_failure_line(contract: Contract) -> None:
    operation = """
    import atexit, os, sys

    def run(task):
        os.write(2, b"native noise\\n")
        print("unfinished", end="", file=sys.stderr)
        raise ValueError("bad")
    """
    code, lines = _end(contract({"stub": operation}, OPERATION="stub"))
    assert code == 70
    assert "native noise" in lines
    assert "ValueError: bad" in lines[-1]


def test_operation_named_like_a_library_imports_it_and_helpers(contract: Contract) -> None:
    operations = {
        "json": "import json\nfrom ._shared import text\ndef run(task): print(json.dumps(text))",
        "_shared": "text = 'shared'",
    }
    assert _end(contract(operations, OPERATION="json")) == (0, ['"shared"'])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_while_native_code_holds_the_lock_ends_in_3_s(contract: Contract, number: int) -> None:
    operation = f"""{HOLD_THE_LOCK}
    import signal
    def run(task):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with task.progress.step("fitting the SVM"):
            print("ready", flush=True)
            hold()
    """
    process = contract({"stub": operation}, OPERATION="stub")
    _read_until(process, "ready")
    began = time.monotonic()
    process.send_signal(number)
    code, lines = _end(process)
    assert time.monotonic() - began < 3
    assert code == 75
    name = signal.Signals(number).name
    assert lines[-1].startswith(f"FAILED (75, try again later): stopped by {name} while fitting the SVM.")


WITH_STOP_REQUESTS = """
    import os, signal, time
    from numerai_contract.stopping import stop_requests

    def run(task):
        with stop_requests() as stop:
            print("searching", flush=True)
            while not stop:
                time.sleep(0.01)
        DELIVER
        print(f"delivered at {stop[0].name}", flush=True)
"""


def test_stop_requests_second_signal_does_not_interrupt_delivery(contract: Contract) -> None:
    second_signal = "os.kill(os.getpid(), signal.SIGTERM)"
    process = contract({"stub": WITH_STOP_REQUESTS.replace("DELIVER", second_signal)}, OPERATION="stub")
    _read_until(process, "searching")
    process.terminate()
    assert _end(process) == (0, ["delivered at SIGTERM"])


def test_stop_requests_slow_delivery_is_killed(contract: Contract) -> None:
    process = contract({"stub": WITH_STOP_REQUESTS.replace("DELIVER", "time.sleep(600)")}, OPERATION="stub")
    _read_until(process, "searching")
    began = time.monotonic()
    process.terminate()
    code, lines = _end(process)
    assert time.monotonic() - began < 3
    assert code == 75
    assert "stopped by SIGTERM" in lines[-1]


def test_stop_requests_after_the_block_restore_the_default(contract: Contract) -> None:
    operation = """
    import signal
    from numerai_contract.stopping import stop_requests

    def run(task):
        with stop_requests():
            pass
        print(signal.getsignal(signal.SIGTERM).name)
    """
    assert _end(contract({"stub": operation}, OPERATION="stub")) == (0, ["SIG_DFL"])


def test_supervisor_stopped_operation_kills_its_child_processes(contract: Contract) -> None:
    operation = """
    import subprocess

    def run(task):
        helper = subprocess.Popen(["sleep", "600"])
        print("helper", helper.pid, flush=True)
        helper.wait()
    """
    process = contract({"stub": operation}, OPERATION="stub")
    helper = int(_read_until(process, "helper").split()[1])
    process.terminate()
    assert _end(process)[0] == 75
    deadline = time.monotonic() + 5
    while _runs(helper) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(helper)


def _runs(pid: int) -> bool:
    try:
        # a process that has ended stays in the table until its parent waits for it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_heartbeat_operation_without_output_is_reported(contract: Contract) -> None:
    operation = f"""{HOLD_THE_LOCK}
    def run(task):
        with task.progress.step("fitting the SVM"):
            hold()
    """
    process = contract({"stub": operation}, OPERATION="stub", HEARTBEAT="0.1")
    status_lines = [_read_until(process, "still fitting") for _ in range(3)]
    process.terminate()
    _end(process)
    assert all(line.startswith("… still fitting the SVM (") and line.endswith(" s so far)") for line in status_lines)


def test_heartbeat_operation_with_output_is_not_reported(contract: Contract) -> None:
    operation = """
    import time

    def run(task):
        for count in range(20):
            time.sleep(0.1)
            task.progress.log(f"line {count}")
    """
    code, lines = _end(contract({"stub": operation}, OPERATION="stub", HEARTBEAT="1.5"))
    assert (code, lines) == (0, [f"line {count}" for count in range(20)])


INCOMPLETE_OUTPUT = """
    import os, signal, time
    from pathlib import Path
    from numerai_contract import outputs

    def run(task):
        with outputs.output(task.parameters.predicting, rows=1, columns=["id"], inputs=None) as part:
            with part.open("wb") as stream:
                stream.write(b"half")
                stream.flush()
                print("half", os.getpid(), flush=True)
                time.sleep(600)
"""


@pytest.mark.parametrize("how", ["stopped", "killed for lack of memory"])
def test_supervisor_incomplete_output_is_removed(contract: Contract, tmp_path: Path, how: str) -> None:
    path = tmp_path / "predictions" / "svm.csv"
    with outputs.output(path, rows=1, columns=["id"], inputs=None) as part:
        part.write_bytes(b"old")
    process = contract({"stub": INCOMPLETE_OUTPUT}, OPERATION="stub", PREDICTING=str(path))
    operation = int(_read_until(process, "half").split()[1])
    assert len(list(path.parent.glob(".*.part"))) == 1
    os.kill(process.pid if how == "stopped" else operation, signal.SIGTERM if how == "stopped" else signal.SIGKILL)
    code, _ = _end(process)
    assert code == (75 if how == "stopped" else 71)
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)
    assert not list(path.parent.glob(".*"))


def test_supervisor_killed_itself_keeps_the_old_output(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "svm.csv"
    with outputs.output(path, rows=1, columns=["id"], inputs=None) as part:
        part.write_bytes(b"old")
    process = contract({"stub": INCOMPLETE_OUTPUT}, OPERATION="stub", PREDICTING=str(path))
    operation = int(_read_until(process, "half").split()[1])
    process.kill()
    os.kill(operation, signal.SIGKILL)
    assert _end(process)[0] == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)


def test_threads_are_set_before_the_operation_is_imported(contract: Contract) -> None:
    operation = "import os\nseen = os.environ['OMP_NUM_THREADS']\ndef run(task): print(seen)"
    assert _end(contract({"stub": operation}, OPERATION="stub", THREADS="3")) == (0, ["3"])


MODEL = """
    import numpy as np
    from numerai_contract.task import TrainingSummary

    SELF_TEST_PARAMETERS = {"SHIFT": "1"}

    def run(task):
        shift = task.parameters.get_int("SHIFT", 0)
        features = task.tournament.features()
        task.write_predictions(PREDICTIONS, TrainingSummary(training_rows=len(task.training)))
"""


def test_self_test_working_operations_pass(contract: Contract) -> None:
    good = MODEL.replace("PREDICTIONS", "features[:, 0] * 0.5 + 0.1 * shift")
    other = """
    def prepare_self_test(storing):
        (storing / "needed").write_text("x")

    def run(task):
        (task.parameters.storing / "made").write_text((task.parameters.storing / "needed").read_text())

    def check_self_test(storing):
        assert (storing / "made").read_text() == "x"
    """
    code, lines = _end(contract({"good": good, "other": other}, "--self-test"))
    assert code == 0, lines
    assert next(line for line in lines if "passed" in line).startswith("self-test of good: passed in")
    assert lines[-1].startswith("self-test of other: passed in")


@pytest.mark.parametrize(
    ("operations", "code", "last_line"),
    [
        ({}, 70, "has no operation"),
        ({"bad": MODEL.replace("PREDICTIONS", "np.full(len(features), 0.5)")}, 69, "learned nothing"),
        ({"bad": "def run(task): pass"}, 70, "self-test of bad: it succeeded without writing predictions.csv"),
        ({"bad": "import not_installed"}, 70, "No module named 'not_installed'"),
    ],
)
def test_self_test_broken_operation_exits_with_its_code(
    contract: Contract, operations: dict[str, str], code: int, last_line: str
) -> None:
    found, lines = _end(contract(operations, "--self-test"))
    assert found == code
    assert last_line in lines[-1]


def test_supervisor_imports_no_heavy_libraries() -> None:
    # the container's memory is for the operation: the supervisor must not take a share of it
    environment = {"PYTHONPATH": str(Path(outputs.__file__).parents[1]), "PATH": os.environ["PATH"]}
    script = "import sys, numerai_contract.__main__; print({'numpy', 'pyarrow'} & set(sys.modules) or 'small')"
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "small\n"
