"""The end of a container in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from numerai_pipeline.container_exits import verdict, write_failure_log


def ended(code: int, *, out_of_memory: bool | None = False) -> dict[str, Any]:
    return {"ExitCode": code, "OOMKilled": out_of_memory}


@pytest.mark.parametrize(
    ("state", "silent", "says", "is_final"),
    [
        (ended(65), 0.0, "svm: bad data (exit code 65): row 3 is wrong", True),
        (ended(70), 0.0, "svm: a bug (exit code 70): row 3 is wrong", False),
        (ended(137, out_of_memory=True), 0.0, "its limit is 512 MiB; raise `memory` of task svm", False),
        (ended(71), 0.0, "its limit is 512 MiB; raise `memory` of task svm", False),
        (ended(137), 0.0, "svm: killed from outside (exit code 137)", False),
        (ended(137, out_of_memory=None), 0.0, "most likely because it needed more memory than its limit of 512", False),
        (ended(137), 12.0, "the Docker engine stopped answering, for 12 s, and its containers ended with it", False),
        (ended(143), 12.0, "the Docker engine stopped answering, for 12 s, and its containers ended with it", False),
        # its own verdict counts whatever the engine did meanwhile
        (ended(65), 12.0, "svm: bad data (exit code 65): row 3 is wrong", True),
    ],
)
def test_it_says_what_was_wrong_and_whether_trying_again_helps(
    state: dict[str, Any], silent: float, says: str, is_final: bool
) -> None:
    error = verdict("svm", state, 512, ["row 3 is wrong", ""], silent)
    assert says in str(error)
    assert isinstance(error, AirflowFailException) is is_final


def test_one_that_ended_well_gives_no_reason_to_complain() -> None:
    assert verdict("svm", ended(0), 512, [], 30.0) is None


def test_the_end_of_its_log_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "svm.try-1.log"
    write_failure_log(file, ValueError("why"), ["one", "two"])
    assert file.read_text().splitlines() == ["ValueError: why", "The last lines of its log, at most 200:", "one", "two"]
