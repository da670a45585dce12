"""Ids of the tasks that every run of the tournament's DAGs has, beside those of ``models.yaml``."""

from __future__ import annotations

WAIT_FOR_ROUND = "wait_for_round"
DOWNLOAD = "download"
UNZIP = "unzip"
DEADLINE = "deadline"
MODELS_ENDED = "models_ended"
MODEL_SUCCEEDED = "model_succeeded"
LEADERBOARD = "leaderboard"
APPROVE = "approve"
SUBMIT = "submit"
RESUBMIT = "resubmit"
EXPLORING = "exploring"

PIPELINE_TASKS = frozenset(
    {
        WAIT_FOR_ROUND,
        DEADLINE,
        DOWNLOAD,
        UNZIP,
        MODELS_ENDED,
        MODEL_SUCCEEDED,
        LEADERBOARD,
        APPROVE,
        SUBMIT,
        RESUBMIT,
        EXPLORING,
    }
)
