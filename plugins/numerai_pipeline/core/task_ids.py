"""Ids of the tasks that every run of the DAG ``numerai_tournament`` has, beside those of ``models.yaml``."""

from __future__ import annotations

WAIT_FOR_ROUND = "wait_for_round"
DOWNLOAD = "download"
UNZIP = "unzip"
LEADERBOARD = "leaderboard"
APPROVE = "approve"
SUBMIT = "submit"
EXPLORING = "exploring"

PIPELINE_TASKS = frozenset({WAIT_FOR_ROUND, DOWNLOAD, UNZIP, LEADERBOARD, APPROVE, SUBMIT, EXPLORING})
