"""The directory of a fit (MODEL): what a model keeps between the fit and later predictions.

::

    model.json              written last: the fit is complete
    saved/                  the model in its library's own format
    validation.csv          predictions of the validation table
    report.json             the report of the fit
    …                       files for downstream tasks (split.parquet, tsne/…), plots
    targets/<target>/       of a fit of several targets, instead of saved/: the same files for each of them

A complete directory never changes: a container that finds one only predicts.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, BadParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RECORD = "model.json"
_FORMAT = 1


class ModelDirectory:
    """The directory of one fit.

    Parameters
    ----------
    path
        The directory; it is created by `begin`.

    Attributes
    ----------
    path : pathlib.Path
    saved : pathlib.Path
        The folder of the model itself.
    validation : pathlib.Path
        The predictions of the validation table.
    report : pathlib.Path
        The report of the fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved = path / "saved"
        self.validation = path / "validation.csv"
        self.report = path / "report.json"

    @property
    def is_complete(self) -> bool:
        """Whether the fit is finished."""
        return (self.path / RECORD).is_file()

    def of_target(self, name: str) -> ModelDirectory:
        """Return the directory of the fit of one of several targets."""
        return ModelDirectory(self.path / "targets" / name)

    def is_fit_of(self, operation: str, inputs: str | None, *, has_validation: bool) -> bool:
        """Whether an earlier attempt has made this fit, with its report and predictions, from the same inputs."""
        if inputs is None or not self.is_complete:
            return False
        try:
            self.verify(operation)
            made_from = self._read_record()["inputs"]
        except BadDataError:
            return False
        files = (self.report, self.validation) if has_validation else (self.report,)
        return made_from == inputs and all(outputs.is_finished(file, inputs) for file in files)

    def check(self) -> None:
        """Check that the directory can hold a fit, or has a complete one, before hours of work.

        Raises
        ------
        BadParameterError
            When it or a parent is a file, or it may not be written to.
        """
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise BadParameterError(
                f"MODEL is {str(self.path)!r}: {existing} is not a directory. Set MODEL to a new directory."
            )
        if not self.is_complete:
            outputs.check_writable(self.path / RECORD, "MODEL")

    def begin(self, *, keep: bool) -> None:
        """Prepare an empty directory for a fit.

        Parameters
        ----------
        keep
            Whether the operation continues with the finished files of an earlier attempt; else they are removed.
        """
        if not keep and self.path.is_dir():
            for entry in self.path.iterdir():
                # links are removed, not followed
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        if self.saved.is_dir():
            shutil.rmtree(self.saved)
        self.saved.mkdir(parents=True)

    def complete(
        self, operation: str, inputs: str | None, feature_names: Sequence[str], targets: Sequence[str] = ()
    ) -> None:
        """Declare the fit finished.

        The record has the SHA-256 of every file of the saved model, the features in the model's order, and the targets
        where there are several, whose fits are complete.
        """
        files = {}
        for file in self._saved_files(targets):
            # on the disk before the record, which declares it complete
            outputs.flush(file)
            files[str(file.relative_to(self.path))] = outputs.sha256_of(file)[0]
        record = {
            "format": _FORMAT,
            "operation": operation,
            "inputs": inputs,
            "features": list(feature_names),
            **({"targets": list(targets)} if targets else {}),
            "files": files,
        }
        with outputs.atomic_write(self.path / RECORD) as part:
            part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def verify(self, operation: str) -> None:
        """Check that the saved model is the one that was completed.

        Raises
        ------
        BadDataError
            When it is the model of another operation, or a file is missing, damaged or was added.
        """
        record = self._read_record()
        files = record["files"]
        if record["operation"] != operation:
            raise BadDataError(f"{self.path}: a fit of {record['operation']!r}, not of {operation!r}. {_REMEDY}")
        found = {str(file.relative_to(self.path)) for file in self._saved_files(record["targets"])}
        for name in sorted(found.symmetric_difference(files)):
            problem = "missing" if name in files else "not of this fit"
            raise BadDataError(f"{self.path / name}: the file is {problem}. {_REMEDY}")
        for name, digest in files.items():
            if outputs.sha256_of(self.path / name)[0] != digest:
                raise BadDataError(f"{self.path / name}: changed after the fit. {_REMEDY}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that the model was fitted on, in order."""
        return tuple(self._read_record()["features"])

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets of a fit of several, the main one first; none of a fit of one."""
        return tuple(self._read_record()["targets"])

    def _read_record(self) -> dict[str, Any]:
        try:
            record: Any = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise BadDataError(f"{self.path / RECORD}: its format is {record['format']!r}. {_REMEDY}")
            found = {name: record[name] for name in ("operation", "inputs")} | {"files": dict(record["files"])}
            lists = {"features": record["features"], "targets": record.get("targets", [])}
            return {**found, **{name: [str(value) for value in values] for name, values in lists.items()}}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadDataError(f"{self.path / RECORD}: not the record of a fit ({error!r}). {_REMEDY}") from error

    def _saved_files(self, targets: Sequence[str]) -> list[Path]:
        saved = sorted(path for path in self.saved.rglob("*") if not path.is_dir())
        for each in map(self.of_target, targets):
            saved += [each.path / RECORD, *each._saved_files(())]
        return saved


_REMEDY = "Start the run with force, which makes a new fit."
