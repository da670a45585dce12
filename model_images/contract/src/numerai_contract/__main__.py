"""The entry point of every model image: ``python -m numerai_contract`` runs the operation that OPERATION names."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from numerai_contract import operations, pulse
from numerai_contract.exits import BadParameterError, ContractError, Exit, understood
from numerai_contract.parameters import Parameters
from numerai_contract.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

# seconds of silence after which the supervisor speaks; a run that says nothing for 30 s looks dead
_HEARTBEAT = 25.0
_LONGEST_QUOTE = 400

_HELP = """\
Runs one operation of a model image, as the environment asks.

  OPERATION            which operation to run (this image: {operations})
  TRAINING, TESTING    the run's training and tournament tables, .parquet or .csv
  PREDICTING           where the predictions go: CSV with the header id,prediction
  REPORTING            where a JSON report goes (may be left out)
  STORING              the run's directory, for what operations share
  TIME_LIMIT           seconds a search may take; TIME_LIMIT_PART: one part of it
  THREADS              cores to use (all)
  MEMORY_LIMIT         the container's memory in MiB, used in messages
  SEED                 what every random choice starts from (67)
  INPUTS               a hash recorded in the manifests of what is written
  HEARTBEAT            seconds of silence before a sign of life is printed ({heartbeat:g})

An operation's own parameters are described at the top of its module in {folder}.
"""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadParameterError(f"{message}. The options are --self-test and --help; all else is in the environment.")


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line and the environment ask for.

    Parameters
    ----------
    arguments
        The command line; by default the process's own.

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
        if not self_test and parameters.operation not in operations.known():
            operations.load(parameters.operation)
        heartbeat = parameters.number("HEARTBEAT", _HEARTBEAT, at_least=0.05, at_most=3_600)
    except ContractError as error:
        print(f"FAILED ({error.exit:d}, {error.exit.meaning}): {error}")
        return error.exit
    work = _self_test if self_test else _run
    supervisor = Supervisor(heartbeat, parameters.memory_limit)
    return supervisor.run(lambda: _guarded(work, parameters))


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:>2d}  {code.meaning}" for code in Exit)
    parser = _Arguments(
        prog="python -m numerai_contract",
        description=_HELP.format(
            operations=", ".join(operations.known()) or "none", heartbeat=_HEARTBEAT, folder=operations.folder()
        ),
        epilog=f"exit codes:\n{codes}\n\nAfter 64 to 66 another try would fail the same way.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--self-test", action="store_true", help="try every operation on a few generated rows")
    return parser


def _guarded(work: Callable[[Parameters], None], parameters: Parameters) -> int:
    """Do the work; on any failure tell the supervisor, which prints it last, and return the exit code."""
    try:
        # before anything heavy is imported
        parameters.limit_threads()
        work(parameters)
    # whatever an operation raises must end in an exit code and one clear line
    except BaseException as error:  # noqa: BLE001
        known = understood(error, parameters.memory_limit)
        if known is None:
            traceback.print_exc()
            # native libraries append their whole stack to a message
            said = (str(error).strip().splitlines() or [""])[0][:_LONGEST_QUOTE]
            known = ContractError(
                f"{type(error).__name__}: {said}. This looks like a bug: the traceback above says where."
            )
        pulse.announce_failure(known.exit, str(known))
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
