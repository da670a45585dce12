"""The raw files of a run, as ``download`` passes them to ``unzip``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.core.payout import PaidScore, payout_days
from numerai_pipeline.storage.manifests import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class RawFile:
    """A verified raw file: its path and the SHA-256 of its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class RawDataset:
    """The raw files of a run.

    Attributes
    ----------
    kind : {"v5", "archive"}
        The layout: today's parquet files, or a zip of the classic layout.
    source : str
        The run's source: ``numerai``, ``practice`` or ``archive``.
    round : str
        Name of the round's folder: the round's number, or ``archive`` for a zip without a given round.
    version : str
        Dataset version such as ``v5.3``; for an archive the zip's file name.
    files : dict
        Role → file. Roles of ``v5``: features, train, validation, and live except in a walk-forward run; for
        comparison, if the dataset has them: example_validation, meta_model, benchmark_validation. A run that only
        predicts has live alone. Role of ``archive``: archive.
    era : int, optional
        For a walk-forward run, the era it predicts, which lies in train or validation; None for a run on live data.
    payout : tuple of PaidScore
        The scores that the round pays on; empty if the server does not report them, and for an archive.
    unavailable : dict
        Role → reason why its file could not be downloaded. Only files for comparison can be missing.
    closes : str, optional
        When the round closes, ISO 8601; None for an archive.
    """

    kind: Literal["v5", "archive"]
    source: str
    round: str
    version: str
    files: dict[str, RawFile]
    era: int | None = None
    payout: tuple[PaidScore, ...] = ()
    unavailable: dict[str, str] = field(default_factory=dict)
    closes: str | None = None

    @property
    def payout_days(self) -> int | None:
        """Days ahead that the payout target of the round looks; None if unknown."""
        return payout_days(self.payout)

    def path(self, role: str) -> Path:
        """Return the path of the file with this role."""
        return Path(self.files[role].path)

    def verify_checksums(self, roles: Iterable[str] | None = None) -> None:
        """Check that files still have the checksums that ``download`` recorded.

        Parameters
        ----------
        roles : iterable of str, optional
            Roles of the files; all by default.

        Raises
        ------
        NotFoundError
            When a file no longer exists.
        BadInputError
            When a file has changed: by another download, or by a damaged disk.
        """
        for role in self.files if roles is None else roles:
            path = self.path(role)
            if not path.is_file():
                msg = f"{path} is gone: clear `download` and run it again"
                raise NotFoundError(msg)
            if file_sha256(path) != self.files[role].sha256:
                msg = (
                    f"{path}: its content differs from the download: it was damaged or replaced since; clear `download`"
                    " and run it again"
                )
                raise BadInputError(msg)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for XCom."""
        return {**asdict(self), "payout": [asdict(score) for score in self.payout]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RawDataset:
        """Restore the dataset from the result of :meth:`to_json`."""
        files = {role: RawFile(**file) for role, file in content["files"].items()}
        payout = tuple(PaidScore(**score) for score in content["payout"])
        return cls(**{**content, "files": files, "payout": payout})
