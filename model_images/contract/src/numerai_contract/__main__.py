"""The entry point of every model image: ``python -m numerai_contract`` runs the operation that OPERATION names."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from numerai_contract import heartbeat, operations
from numerai_contract.exits import BadParameterError, ContractError, Exit, to_contract_error
from numerai_contract.parameters import Parameters
from numerai_contract.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

# seconds without output after which the supervisor prints a line; after 30 s without output a run looks dead
_HEARTBEAT_SECONDS = 25.0
_MAX_QUOTE_LENGTH = 400

_HELP = """\
Runs one operation of a model image, configured by environment variables.

  OPERATION            the operation to run (this image: {operations})
  TRAINING             table of the rows to learn from, .parquet or .csv
  VALIDATION           table of later rows with known targets: scored, and part of the final fit (optional)
  TESTING              table of the rows to predict
  PREDICTING           path of the predictions: CSV with the header id,prediction
  MODEL                directory of the fit (optional); a complete one only predicts, and needs no TRAINING
  REPORTING            path of a JSON report (optional)
  STORING              the run's directory, for files that operations share
  TIME_LIMIT           seconds a search may take; TIME_LIMIT_PART: one part of it
  THREADS              cores to use (all)
  MEMORY_LIMIT         the container's memory in MiB, used in messages
  TARGET_DAYS          trading days that the target looks ahead, such as 20 or 60 (optional)
  TARGETS              further targets, columns of the tables: one fit each, their ranks are blended (optional)
  EMBARGO              weeks left out between rows that are learned and rows that judge (by TARGET_DAYS, or 8)
  SEED                 seed of every random choice (67)
  INPUTS               a hash recorded in the manifests of the outputs
  HEARTBEAT            seconds without output before a status line is printed ({heartbeat:g})

The parameters of an operation are described at the top of its module in {folder}.
"""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadParameterError(
            f"{message}. The options are --self-test and --help; set everything else in the environment."
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the operation, or the self-test, that the command line and the environment request.

    Parameters
    ----------
    arguments
        The command line; by default that of the process.

    Returns
    -------
    int
        An exit code of the contract, see `numerai_contract.exits`.
    """
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)  # type: ignore[union-attr]
    parameters = Parameters(os.environ)
    try:
        self_test = _parser().parse_args(arguments).self_test
        parameters.check()
        if not self_test and parameters.operation not in operations.available():
            operations.load(parameters.operation)
        heartbeat_seconds = parameters.get_float("HEARTBEAT", _HEARTBEAT_SECONDS, at_least=0.05, at_most=3_600)
    except ContractError as error:
        print(f"FAILED ({error.exit:d}, {error.exit.meaning}): {error}")
        return error.exit
    work = _self_test if self_test else _run
    supervisor = Supervisor(heartbeat_seconds, parameters.memory_limit)
    return supervisor.run(lambda: _run_reporting_failure(work, parameters))


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:>2d}  {code.meaning}" for code in Exit)
    parser = _Arguments(
        prog="python -m numerai_contract",
        description=_HELP.format(
            operations=", ".join(operations.available()) or "none",
            heartbeat=_HEARTBEAT_SECONDS,
            folder=operations.folder(),
        ),
        epilog=f"exit codes:\n{codes}\n\nAfter 64 to 69 another attempt would fail the same way.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--self-test", action="store_true", help="run every operation on a few generated rows")
    return parser


def _run_reporting_failure(work: Callable[[Parameters], None], parameters: Parameters) -> int:
    """Run `work` and return the exit code; the supervisor receives a failure and prints it as the last line."""
    try:
        # before anything heavy is imported
        parameters.limit_threads()
        work(parameters)
    # every exception of an operation must end in an exit code and one clear line
    except BaseException as error:  # noqa: BLE001
        known = to_contract_error(error, parameters.memory_limit)
        if known is None:
            traceback.print_exc()
            # native libraries append their whole stack to a message
            message = (str(error).strip().splitlines() or [""])[0][:_MAX_QUOTE_LENGTH]
            known = ContractError(f"{type(error).__name__}: {message}. This looks like a bug: see the traceback above.")
        heartbeat.report_failure(known.exit, str(known))
        return known.exit
    return Exit.DONE


def _run(parameters: Parameters) -> None:
    from numerai_contract.task import Task

    task = Task(parameters)
    task.check()
    operations.run(task)


def _self_test(_parameters: Parameters) -> None:
    from numerai_contract import self_test

    self_test.run()


if __name__ == "__main__":
    sys.exit(main())
