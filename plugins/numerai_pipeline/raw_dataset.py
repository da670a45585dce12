"""What ``download`` hands to ``unzip``: which raw files a run is made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numerai_pipeline.errors import BadInputError, NotFoundError
from numerai_pipeline.manifests import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class RawFile:
    """A verified raw file: where it is and the SHA-256 of its content."""

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
        Name of the round's folder: the round's number, or ``archive`` for a zip whose round nobody named.
    version : str
        Dataset version such as ``v5.3``; for an archive the zip's file name.
    files : dict
        Role → file. Roles of ``v5``: features, train, validation, and live but for a walk-forward run; what models are
        measured against, where the dataset has it: example_validation, example_live, meta_model, benchmark_validation,
        benchmark_live. Role of ``archive``: archive.
    era : int, optional
        For a walk-forward run, the era it predicts, which lies in train or validation; None for a run on live data.
    payout_days : int, optional
        How many days ahead the target looks on which the round pays, where the server has an answer.
    unavailable : dict
        Role → why its file could not be downloaded. Only files that models are compared with can be missing.
    closes : str, optional
        When the round closes, ISO 8601; None for an archive.
    """

    kind: Literal["v5", "archive"]
    source: str
    round: str
    version: str
    files: dict[str, RawFile]
    era: int | None = None
    payout_days: int | None = None
    unavailable: dict[str, str] = field(default_factory=dict)
    closes: str | None = None

    def path(self, role: str) -> Path:
        """Path of the file with this role."""
        return Path(self.files[role].path)

    def require_as_downloaded(self, roles: Iterable[str] | None = None) -> None:
        """Make sure that files still have the content that was handed on.

        Parameters
        ----------
        roles : iterable of str, optional
            Which files; all when left out.

        Raises
        ------
        NotFoundError
            When one is gone.
        BadInputError
            When one was changed since: by another download, or by a damaged disk.
        """
        for role in self.files if roles is None else roles:
            path = self.path(role)
            if not path.is_file():
                msg = f"{path} is gone: clear `download` and run it again"
                raise NotFoundError(msg)
            if file_sha256(path) != self.files[role].sha256:
                msg = (
                    f"{path}: its content is not what was downloaded: it was damaged or replaced since; clear"
                    " `download` and run it again"
                )
                raise BadInputError(msg)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as XCom keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RawDataset:
        """Build it again from :meth:`to_json`'s answer."""
        files = {role: RawFile(**file) for role, file in content["files"].items()}
        return cls(**{**content, "files": files})
