"""Former import path of the timetable, for DAGs in the database. Removed in the next release."""

from __future__ import annotations

from numerai_pipeline.dag.timetable import NumeraiRounds as _NumeraiRounds


class NumeraiRounds(_NumeraiRounds):
    """The timetable under its former import path."""
