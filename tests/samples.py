"""Names and entries that several tests share."""

from __future__ import annotations

import time
from pathlib import Path

from numerai_pipeline.core.payout import PaidScore

ROOT = Path(__file__).parent.parent
DEPLOYMENT = "tests"
"""Id of the Airflow deployment."""
FLEMING = (
    "logistic_regression",
    "neural_network",
    "pairwise_network",
    "pairwise_regression",
    "factorization_machines",
    "gradient_boosted_trees",
    "tpot",
)
# the days on which rounds open, as NUMERAI_SCHEDULE has them, by their place in the week
ROUND_DAYS = ("tue", "wed", "thu", "fri", "sat")
INDEPENDENT = ("svm", "xgboost", "lightgbm", "wide_and_deep", "auto_sklearn", "auto_weka")


def task(**entry: object) -> dict[str, object]:
    """Make an entry of the registry with the least it needs."""
    return {"image": "classic", "description": "A test.", "memory": 512, "time_limit": 5, **entry}


def payout(days: int) -> tuple[PaidScore, ...]:
    """Make the paid scores of a round on a target of 20 or 60 days, as recorded."""
    corr, mmc = (3.0, 15.0) if days == 60 else (0.75, 2.25)
    names = ("corr60", "mmc60") if days == 60 else ("v2_corr20", "mmc")
    return (
        PaidScore("correlation", names[0], days, corr),
        PaidScore("meta_model_contribution", names[1], days, mmc),
    )


def wait_until_contended(lock: Path) -> None:
    """Return when some process waits for a lock file, according to the kernel's list of locks; fail after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if lock.exists():
            inode = f":{lock.stat().st_ino} "
            waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line and inode in line]
            if waiting:
                return
        time.sleep(0.02)
    msg = f"no process waits for {lock}"
    raise AssertionError(msg)
