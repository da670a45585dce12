"""What ``unzip`` decides for all later tasks of a run: its dataset, its live rows, and which fits it may use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.payout import PaidScore
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from numerai_pipeline.storage.layout import RunLayout


@dataclass(frozen=True)
class RunMetadata:
    """The part of ``run.json`` that decides the results of a run.

    Attributes
    ----------
    dag, run_id : str
        The run of Airflow.
    round : str
        Its round.
    created_at : str
        When the data was unpacked, ISO 8601, UTC.
    closes : str or None
        When the round closes, ISO 8601, where that is known.
    dataset : str
        Key of the dataset that new fits learn from.
    older_datasets : tuple of str
        Keys of the datasets whose fits may predict as well, newest first.
    references : str or None
        Key of the published predictions to compare with.
    live_sha256 : str
        Digest of the live table.
    prefers_finished : bool
        Whether a finished fit of an older dataset is better than a new fit: on weekdays, when there is little time.
    may_fit : bool
        Whether new fits are allowed.
    source : str
        The run's source, such as ``archive``.
    payout : tuple of PaidScore
        The scores that the round pays on; empty where they are unknown.
    benchmark : str or None
        Name of the benchmark model to compare with.
    """

    dag: str
    run_id: str
    round: str
    created_at: str
    closes: str | None
    dataset: str
    older_datasets: tuple[str, ...]
    references: str | None
    live_sha256: str
    prefers_finished: bool
    may_fit: bool
    source: str = ""
    payout: tuple[PaidScore, ...] = ()
    benchmark: str | None = None

    @property
    def run(self) -> str:
        """The run's name, ``<dag>/<run id>``."""
        return f"{self.dag}/{self.run_id}"

    @property
    def scoring(self) -> dict[str, str]:
        """Environment variables of the tasks that score: ``PAYOUT`` (JSON) and ``BENCHMARK``, where they are known."""
        payout = json.dumps([asdict(score) for score in self.payout]) if self.payout else None
        variables = {"PAYOUT": payout, "BENCHMARK": self.benchmark}
        return {name: value for name, value in variables.items() if value is not None}

    def write(self, layout: RunLayout, more: dict[str, Any]) -> dict[str, Any]:
        """Write ``run.json`` with further values for people; return its content."""
        lists = {"older_datasets": list(self.older_datasets), "payout": [asdict(score) for score in self.payout]}
        content = {**more, **asdict(self), **lists}
        with atomic_path(layout.run_metadata) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return content

    @classmethod
    def read(cls, layout: RunLayout) -> RunMetadata:
        """Read ``run.json``.

        Raises
        ------
        BadInputError
            When it is missing or damaged.
        """
        file = layout.run_metadata
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            # fields with defaults are missing in a run of an earlier release
            own = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            payout = tuple(PaidScore(**score) for score in own.get("payout", ()))
            return cls(**own | {"older_datasets": tuple(content["older_datasets"]), "payout": payout})
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"{file}: missing or damaged ({error!r}): clear `unzip` and run it again"
            raise BadInputError(msg) from error
