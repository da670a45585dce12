"""The real process: its last line, its exit code, its signs of life, and how it dies."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator

Columns = dict[str, Any]
Contract = Callable[..., "subprocess.Popen[str]"]
Writer = Callable[..., Path]

# keeps Python's lock, as native code does that was not written with threads in mind
HOLD_THE_LOCK = """
    import ctypes
    def hold():
        ctypes.PyDLL(None).sleep(600)
"""


def _end(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    printed, errors = process.communicate(timeout=30)
    # one stream only, or the order of lines would be anyone's guess
    assert errors == ""
    return process.returncode, printed.splitlines()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return (line.rstrip("\n") for line in process.stdout)


def _read_until(process: subprocess.Popen[str], word: str) -> str:
    return next(line for line in _lines(process) if word in line)


def test_done(contract: Contract) -> None:
    code, lines = _end(contract({"hello": "def run(task): task.progress.say('hello')"}, OPERATION="hello"))
    assert (code, lines) == (0, ["hello"])


def test_help_names_variables_operations_and_exit_codes(contract: Contract) -> None:
    code, lines = _end(contract({"svm": "", "xgboost": "", "_shared": ""}, "--help"))
    text = "\n".join(lines)
    assert code == 0
    assert "this image: svm, xgboost)" in text
    for word in ("TRAINING", "PREDICTING", "MEMORY_LIMIT", "--self-test", "71  not enough memory"):
        assert word in text


@pytest.mark.parametrize(
    ("environment", "arguments", "last_line"),
    [
        ({}, [], "FAILED (64, bad parameters): OPERATION is not set"),
        ({"OPERATION": "svn"}, [], "FAILED (64, bad parameters): OPERATION is 'svn': this image knows good, svm."),
        ({"OPERATION": "_shared"}, [], "OPERATION is '_shared': this image knows good, svm."),
        ({"OPERATION": "../svm"}, [], "OPERATION is '../svm': this image knows good, svm."),
        ({"OPERATION": "svm", "SEED": "x"}, [], "FAILED (64, bad parameters): SEED is 'x': allowed is a whole number"),
        ({"OPERATION": "svm"}, ["--selftest"], "FAILED (64, bad parameters): unrecognized arguments: --selftest"),
        ({"OPERATION": "svm", "HEARTBEAT": "0"}, [], "HEARTBEAT is '0'"),
    ],
)
def test_bad_parameters(contract: Contract, environment: dict[str, str], arguments: list[str], last_line: str) -> None:
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
        ("task.training", 66, "training.parquet: there is no such file. Run the task", False),
        ("raise exits.ModelFailureError('constant')", 70, "FAILED (70, the operation failed): constant", False),
        ("{}['x']", 70, "FAILED (70, the operation failed): KeyError: 'x'. This looks like a bug: the traceback", True),
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
        ("import os; os._exit(3)", 70, "it ended with code 3 while thinking, without a word", False),
        ("import os; os.kill(os.getpid(), 11)", 70, "a library crashed with SIGSEGV while thinking", False),
        ("import os; os.kill(os.getpid(), 9)", 71, "something killed it, most likely the system while thinking", False),
    ],
)
def test_failures_end_in_their_code_and_one_clear_line(
    contract: Contract, tmp_path: Path, body: str, code: int, last_line: str, *, traceback: bool
) -> None:
    operation = f"""
    from numerai_contract import exits

    def run(task):
        with task.progress.step("thinking"):
            {body}
    """
    found, lines = _end(
        contract({"toy": operation}, OPERATION="toy", MEMORY_LIMIT="512", TRAINING=str(tmp_path / "training.parquet"))
    )
    assert found == code
    assert last_line in lines[-1]
    assert lines[-1].startswith(f"FAILED ({code}, ")
    assert any("Traceback" in line for line in lines) is traceback


def test_an_operation_that_does_not_import_is_a_bug(contract: Contract) -> None:
    code, lines = _end(contract({"toy": "import no_such_library"}, OPERATION="toy"))
    assert code == 70
    assert "ModuleNotFoundError: No module named 'no_such_library'" in lines[-1]


def test_the_last_line_stays_the_last(contract: Contract) -> None:
    operation = """
    import atexit, os, sys

    def run(task):
        os.write(2, b"native noise\\n")
        print("unfinished", end="", file=sys.stderr)
        raise ValueError("bad")
    """
    code, lines = _end(contract({"toy": operation}, OPERATION="toy"))
    assert code == 70
    assert "native noise" in lines
    assert "ValueError: bad" in lines[-1]


def test_an_operation_may_be_named_like_its_library_and_import_its_neighbours(contract: Contract) -> None:
    operations = {
        "json": "import json\nfrom ._shared import word\ndef run(task): print(json.dumps(word))",
        "_shared": "word = 'shared'",
    }
    assert _end(contract(operations, OPERATION="json")) == (0, ['"shared"'])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_within_3_s_even_while_native_code_holds_the_lock(contract: Contract, number: int) -> None:
    operation = f"""{HOLD_THE_LOCK}
    import signal
    def run(task):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with task.progress.step("fitting the SVM"):
            print("ready", flush=True)
            hold()
    """
    process = contract({"toy": operation}, OPERATION="toy")
    _read_until(process, "ready")
    began = time.monotonic()
    process.send_signal(number)
    code, lines = _end(process)
    assert time.monotonic() - began < 3
    assert code == 75
    name = signal.Signals(number).name
    assert lines[-1].startswith(f"FAILED (75, try again later): stopped by {name} while fitting the SVM.")


LISTENING = """
    import os, signal, time
    from numerai_contract.stopping import stop_requests

    def run(task):
        with stop_requests() as stop:
            print("searching", flush=True)
            while not stop:
                time.sleep(0.01)
        DELIVER
        print(f"delivered what there was at {stop[0].name}", flush=True)
"""


def test_an_operation_that_listens_may_deliver_whatever_else_is_asked(contract: Contract) -> None:
    asked_again = "os.kill(os.getpid(), signal.SIGTERM)"
    process = contract({"toy": LISTENING.replace("DELIVER", asked_again)}, OPERATION="toy")
    _read_until(process, "searching")
    process.terminate()
    assert _end(process) == (0, ["delivered what there was at SIGTERM"])


def test_an_operation_that_listens_and_takes_too_long_is_ended(contract: Contract) -> None:
    process = contract({"toy": LISTENING.replace("DELIVER", "time.sleep(600)")}, OPERATION="toy")
    _read_until(process, "searching")
    began = time.monotonic()
    process.terminate()
    code, lines = _end(process)
    assert time.monotonic() - began < 3
    assert code == 75
    assert "stopped by SIGTERM" in lines[-1]


def test_outside_a_request_ends_an_operation_at_once_again(contract: Contract) -> None:
    operation = """
    import signal
    from numerai_contract.stopping import stop_requests

    def run(task):
        with stop_requests():
            pass
        print(signal.getsignal(signal.SIGTERM).name)
    """
    assert _end(contract({"toy": operation}, OPERATION="toy")) == (0, ["SIG_DFL"])


def test_helpers_of_an_operation_end_with_it(contract: Contract) -> None:
    operation = """
    import subprocess

    def run(task):
        helper = subprocess.Popen(["sleep", "600"])
        print("helper", helper.pid, flush=True)
        helper.wait()
    """
    process = contract({"toy": operation}, OPERATION="toy")
    helper = int(_read_until(process, "helper").split()[1])
    process.terminate()
    assert _end(process)[0] == 75
    deadline = time.monotonic() + 5
    while _runs(helper) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(helper)


def _runs(pid: int) -> bool:
    try:
        # a process that ended stays in the table until someone asks after it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_heartbeat_speaks_for_an_operation_that_is_silent(contract: Contract) -> None:
    operation = f"""{HOLD_THE_LOCK}
    def run(task):
        with task.progress.step("fitting the SVM"):
            hold()
    """
    process = contract({"toy": operation}, OPERATION="toy", HEARTBEAT="0.1")
    signs = [_read_until(process, "still fitting") for _ in range(3)]
    process.terminate()
    _end(process)
    assert all(sign.startswith("… still fitting the SVM (") and sign.endswith(" s so far)") for sign in signs)


def test_heartbeat_is_quiet_while_the_operation_speaks(contract: Contract) -> None:
    operation = """
    import time

    def run(task):
        for count in range(20):
            time.sleep(0.1)
            task.progress.say(f"line {count}")
    """
    code, lines = _end(contract({"toy": operation}, OPERATION="toy", HEARTBEAT="1.5"))
    assert (code, lines) == (0, [f"line {count}" for count in range(20)])


HALF_WRITTEN = """
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


@pytest.mark.parametrize("how", ["stopped", "killed for want of memory"])
def test_what_was_half_written_is_removed(contract: Contract, tmp_path: Path, how: str) -> None:
    path = tmp_path / "predictions" / "svm.csv"
    with outputs.output(path, rows=1, columns=["id"], inputs=None) as part:
        part.write_bytes(b"old")
    process = contract({"toy": HALF_WRITTEN}, OPERATION="toy", PREDICTING=str(path))
    operation = int(_read_until(process, "half").split()[1])
    assert len(list(path.parent.glob(".*.part"))) == 1
    os.kill(process.pid if how == "stopped" else operation, signal.SIGTERM if how == "stopped" else signal.SIGKILL)
    code, _ = _end(process)
    assert code == (75 if how == "stopped" else 71)
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)
    assert not list(path.parent.glob(".*"))


def test_a_container_killed_outright_leaves_the_old_output(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "svm.csv"
    with outputs.output(path, rows=1, columns=["id"], inputs=None) as part:
        part.write_bytes(b"old")
    process = contract({"toy": HALF_WRITTEN}, OPERATION="toy", PREDICTING=str(path))
    operation = int(_read_until(process, "half").split()[1])
    process.kill()
    os.kill(operation, signal.SIGKILL)
    assert _end(process)[0] == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)


def test_threads_are_set_before_libraries_are_imported(contract: Contract) -> None:
    operation = "import os\nseen = os.environ['OMP_NUM_THREADS']\ndef run(task): print(seen)"
    assert _end(contract({"toy": operation}, OPERATION="toy", THREADS="3")) == (0, ["3"])


MODEL = """
    import numpy as np
    from numerai_contract.task import Learned

    SELF_TEST_PARAMETERS = {"SHIFT": "1"}

    def run(task):
        shift = task.parameters.whole("SHIFT", 0)
        features = task.tournament.features()
        task.deliver(SAYS, Learned(training_rows=len(task.training)))
"""


def test_self_test_passes_for_models_that_work(contract: Contract) -> None:
    good = MODEL.replace("SAYS", "features[:, 0] * 0.5 + 0.1 * shift")
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
    ("operations", "last_line"),
    [
        ({}, "holds no operation"),
        ({"bad": MODEL.replace("SAYS", "np.full(len(features), 0.5)")}, "learned nothing"),
        ({"bad": "def run(task): pass"}, "self-test of bad: it ended well but left no predictions.csv"),
        ({"bad": "import nothing_like_it"}, "No module named 'nothing_like_it'"),
    ],
)
def test_self_test_fails_for_operations_that_do_not(
    contract: Contract, operations: dict[str, str], last_line: str
) -> None:
    code, lines = _end(contract(operations, "--self-test"))
    assert code == 70
    assert last_line in lines[-1]


def test_the_supervisor_stays_small() -> None:
    # an operation's memory is all the container has: what watches over it must not take a share
    environment = {"PYTHONPATH": str(Path(outputs.__file__).parents[1]), "PATH": os.environ["PATH"]}
    look = "import sys, numerai_contract.__main__; print({'numpy', 'pyarrow'} & set(sys.modules) or 'small')"
    found = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "small\n"
