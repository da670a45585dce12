"""Unpacks a raw dataset as `unzip` does: the dataset, then the live table of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.dataset.store import Dataset
from numerai_pipeline.dataset.unpack import LiveSummary, find_or_make_dataset, write_live
from numerai_pipeline.storage.layout import DataLayout, RunLayout

DATASET_FILES = ["dataset.json"]
DATASET_FILES += [f"{name}.parquet{end}" for name in ("training", "validation") for end in ("", ".manifest.json")]
LIVE_FILES = ["live.parquet", "live.parquet.manifest.json"]


@dataclass(frozen=True)
class Unpacked:
    """A dataset and the summary of a run's live table."""

    dataset: Dataset
    live: LiveSummary


class Volume:
    """A data volume with one run; ``training`` and ``validation`` are those of the dataset unpacked last."""

    def __init__(self, root: Path) -> None:
        self.data = DataLayout(root)
        self.run = self.data.run("100", "run")
        self.dataset: Dataset | None = None

    def unpack(self, raw: RawDataset, *, run: RunLayout | None = None, **choices: Any) -> Unpacked:
        """Unpack with default parameters where none are given."""
        usual: dict[str, Any] = {"feature_set": "small", "target": None, "every_nth_era": 1}
        self.dataset = find_or_make_dataset(raw, self.data, **{**usual, **choices})
        return Unpacked(self.dataset, write_live(raw, self.dataset, run or self.run))

    @property
    def training(self) -> Path:
        """The training table."""
        assert self.dataset is not None
        return self.dataset.layout.training

    @property
    def validation(self) -> Path:
        """The validation table."""
        assert self.dataset is not None
        return self.dataset.layout.validation

    @property
    def live(self) -> Path:
        """The live table."""
        return self.run.live

    def files(self) -> list[str]:
        """All files but locks: those of finished datasets without the key, those of the run without its folder."""
        found = []
        for path in self.data.root.rglob("*"):
            if not path.is_file() or path.suffix == ".lock":
                continue
            name = path.relative_to(self.data.root)
            if self.run.directory in path.parents:
                name = path.relative_to(self.run.directory)
            elif name.parts[0] == "datasets" and not name.parts[1].startswith("."):
                name = Path(*name.parts[2:])
            found.append(str(name))
        return sorted(found)
