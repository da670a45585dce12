"""The error that the end of a container stands for, and the saved end of its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from numerai_pipeline.containers.backend import ContainerState
from numerai_pipeline.containers.exit_codes import error_from_exit, write_failure_log
from numerai_pipeline.core.errors import BadInputError


def ended(code: int, *, oom_killed: bool | None = False) -> ContainerState:
    return ContainerState("ended", code, oom_killed)


@pytest.mark.parametrize(
    ("state", "unreachable_seconds", "message", "is_final"),
    [
        (ended(65), 0.0, "svm: bad data (exit code 65): row 3 is wrong", True),
        (ended(69), 0.0, "svm: no usable model (exit code 69): row 3 is wrong Not retried, as the same inputs", True),
        (ended(70), 0.0, "svm: a bug (exit code 70): row 3 is wrong", False),
        (ended(137, oom_killed=True), 0.0, "its limit is 512 MiB; raise `memory` of task svm", False),
        (ended(71), 0.0, "its limit is 512 MiB; raise `memory` of task svm", False),
        (ended(137), 0.0, "svm: killed from outside (exit code 137)", False),
        (ended(137, oom_killed=None), 0.0, "most likely because it needed more memory than its limit of 512", False),
        (ended(137), 12.0, "the Docker engine was unreachable for 12 s, and its containers ended with it", False),
        (ended(143), 12.0, "the Docker engine was unreachable for 12 s, and its containers ended with it", False),
        # an exit code of the contract is the reason, also if the engine was unreachable
        (ended(65), 12.0, "svm: bad data (exit code 65): row 3 is wrong", True),
    ],
)
def test_error_from_exit_failure_names_reason_and_retry(
    state: ContainerState, unreachable_seconds: float, message: str, is_final: bool
) -> None:
    error = error_from_exit("svm", state, 512, ["row 3 is wrong", ""], unreachable_seconds)
    assert message in str(error)
    assert isinstance(error, BadInputError) is is_final


def test_error_from_exit_success_returns_none() -> None:
    assert error_from_exit("svm", ended(0), 512, [], 30.0) is None


def test_write_failure_log_contains_error_and_last_lines(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "svm.try-1.log"
    write_failure_log(file, ValueError("why"), ["one", "two"])
    assert file.read_text().splitlines() == ["ValueError: why", "The last lines of its log, at most 200:", "one", "two"]
