"""Former import path of the trigger, for runs that are waiting. Removed in the next release."""

from __future__ import annotations

from numerai_pipeline.dag.round_trigger import RoundTrigger

__all__ = ["RoundTrigger"]
