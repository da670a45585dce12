"""Datasets of a round: versions, files and their verified download.

A run that fits models needs the four files of :data:`ROLES`; a run that only predicts needs the live file. Those of
:data:`BENCHMARK_FILES` only serve to compare with: a file that is missing, refused or damaged costs a warning, never
the run.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from numerai_pipeline.core.eras import era_of_round, week_of_era
from numerai_pipeline.core.errors import NetworkError, NotFoundError, ProtocolError, RoundClosedError
from numerai_pipeline.dataset.file_checks import Check, Content, ContentError, check_for, check_parquet
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.numerai_api.client import CLASSIC, MissingError
from numerai_pipeline.numerai_api.downloads import RemoteFile, fetch, remote_identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from numerai_pipeline.numerai_api.client import ApiClient
    from numerai_pipeline.numerai_api.retries import RetryPolicy
    from numerai_pipeline.numerai_api.tournament import Round, Tournament
    from numerai_pipeline.storage.layout import DataLayout

log = logging.getLogger(__name__)

ROLES = {
    "features": "features.json",
    "train": "train.parquet",
    "validation": "validation.parquet",
    "live": "live.parquet",
}
"""The files of a run, by role."""

BENCHMARK_FILES = {
    "example_validation": "validation_example_preds.parquet",
    "meta_model": "meta_model.parquet",
    "benchmark_validation": "validation_benchmark_models.parquet",
}
"""Predictions that models are compared with, by role; a version need not have any of them."""

_BENCHMARK_ATTEMPTS = 3
_ERA_TOLERANCE = timedelta(days=21)
_RECENT_ROUNDS = 5

_DATASET = """
    query($filename: String! $round: Int $tournament: Int) {
        dataset(filename: $filename round: $round tournament: $tournament)
    }"""


class Datasets:
    """Files that the tournament serves for a round.

    Parameters
    ----------
    client : ApiClient
    tournament : Tournament
        The rounds.
    """

    def __init__(self, client: ApiClient, tournament: Tournament) -> None:
        self._client = client
        self._tournament = tournament

    def list_datasets(self, round_number: int | None = None) -> list[str]:
        """List the files that are served for a round, the current one by default, such as ``v5.3/train.parquet``."""
        names = self._client.call("listing the datasets", lambda: self._client.numerapi.list_datasets(round_number))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            msg = f"{self._client.url}: the list of datasets is not a list of names: {str(names)[:200]}"
            raise ProtocolError(msg)
        return names

    def latest_version(self) -> str:
        """Give the newest dataset version that has all files of a run: v5.10 is newer than v5.9."""
        return _newest_complete(self.list_datasets(), self._client.url)

    def version_for(self, version: str, round_number: int) -> str | None:
        """Give the dataset version that a run of a round uses; None while not all its files are listed.

        Parameters
        ----------
        version : str
            The requested version, such as ``v5.3``, or ``latest``.
        round_number : int

        Raises
        ------
        NotFoundError
            The requested version does not exist.
        """
        try:
            names = self.list_datasets(round_number)
        except NotFoundError:  # the server does not have the round's data yet, or no round is open
            return None
        if version == "latest":
            return _newest_complete(names, self._client.url)
        if version in _versions(names) and not _versions(names)[version].issuperset(ROLES.values()):
            return None
        return _listed_version(version, names)

    def remote_live(self, version: str, round_number: int) -> RemoteFile | None:
        """Query which live file of a version is served for a round; None when there is none."""
        try:
            return self._identity(f"{version}/{ROLES['live']}", round_number)
        except NotFoundError:
            return None

    def download(
        self,
        name: str,
        destination: Path,
        round_number: int | None = None,
        check: Check | None = None,
        *,
        is_listed: bool = False,
        policy: RetryPolicy | None = None,
    ) -> RawFile:
        """Download a file of a round, the current one by default, verified and only when needed.

        Parameters
        ----------
        name : str
            As :meth:`list_datasets` gives it.
        destination : Path
        round_number : int, optional
        check : callable, optional
            Reads the finished file; chosen by the name's suffix by default.
        is_listed : bool
            Whether the server lists the file, so that "not found" is a transient error.
        policy : RetryPolicy, optional
            The client's by default.

        Raises
        ------
        NotFoundError
            When the server does not have it for this round.
        """
        return fetch(
            name,
            lambda: self._presign(name, round_number),
            destination,
            timeout=self._client.timeout,
            check=check or check_for(name),
            about={"name": name},
            policy=policy or self._client.policy,
            is_listed=is_listed,
        )

    def download_round(
        self,
        layout: DataLayout,
        *,
        source: str,
        version: str = "latest",
        round_number: int | None = None,
        run_date: datetime | None = None,
        walk_forward: bool = False,
        needs_live_only: Callable[[Round], bool] = lambda _round: False,
    ) -> RawDataset:
        """Download all files of a run of a round.

        Parameters
        ----------
        layout : DataLayout
            Destination: ``downloads/<source>/<version>/<name>``, and the live file in a folder of its round.
        source : str
            ``numerai`` or ``practice``.
        version : str
            Such as ``v5.3``, or ``latest``.
        round_number : int, optional
            The round; comes before ``run_date``.
        run_date : datetime, optional
            The run's date: its round is used, never silently the current one.
        walk_forward : bool
            What to do for a closed round whose live data is no longer served: download today's training and validation
            files and predict the round's era, instead of failing.
        needs_live_only : callable
            Whether a round whose live data is served needs the live file only: its run predicts with finished fits.

        Raises
        ------
        NotFoundError
            The round or the version does not exist.
        RoundClosedError
            The round's live data is no longer served, or no round is current.
        """
        the_round = self._tournament.required_round(round_number, run_date)
        # from here on, attempts go on until the round closes
        self._client.policy = replace(self._client.policy, deadline=the_round.close_time)
        era = self._walk_forward_era(the_round, version, walk_forward=walk_forward)
        live_only = era is None and needs_live_only(the_round)
        # a closed round has no files: today's files include the data of that time
        served_round = the_round.number if era is None else None
        names = self.list_datasets(served_round)
        version = _newest_complete(names, self._client.url) if version == "latest" else _listed_version(version, names)
        log.info("downloading %s for %s", version, the_round)
        folder = layout.downloads(f"{source}/{version}")

        def destination(file_name: str) -> Path:
            is_live = file_name.startswith("live")
            return (folder / f"round-{the_round.number}" if is_live else folder) / file_name

        def check_live(path: Path) -> Content:
            return _check_live(path, the_round)

        files = {
            role: self.download(
                f"{version}/{file_name}",
                destination(file_name),
                served_round,
                check_live if role == "live" else None,
                is_listed=True,
            )
            for role, file_name in ROLES.items()
            if (era is None if role == "live" else not live_only)
        }
        unavailable: dict[str, str] = {}
        listed = _versions(names).get(version, set())
        for role, file_name in BENCHMARK_FILES.items():
            if file_name not in listed or live_only:
                continue
            try:
                files[role] = self._download_benchmark(f"{version}/{file_name}", destination(file_name), served_round)
            except (NetworkError, ProtocolError, NotFoundError) as error:
                log.warning("%s: %s; the run continues without it", file_name, error)
                unavailable[role] = str(error)
        return RawDataset(
            "v5",
            source,
            str(the_round.number),
            version,
            files,
            era,
            payout=self._tournament.payout(the_round.number),
            unavailable=unavailable,
            closes=the_round.close_time.isoformat(),
        )

    def _download_benchmark(self, name: str, destination: Path, round_number: int | None) -> RawFile:
        """Download a file to compare with; it is not worth waiting for until the round closes."""
        policy = self._client.policy
        policy = replace(policy, attempts=min(policy.attempts, _BENCHMARK_ATTEMPTS), deadline=None)
        return self.download(name, destination, round_number, policy=policy)

    def _walk_forward_era(self, the_round: Round, version: str, *, walk_forward: bool) -> int | None:
        """Give the era of a round whose live data is gone; None for one whose live data is served."""
        current = self._tournament.current_round()
        if current is not None and the_round.number == current.number:
            return None
        try:
            self._require_served(the_round, current, version)
        except RoundClosedError as error:
            over = current is None or the_round.number < current.number
            if not walk_forward or not over:
                raise
            log.info("%s: walking forward instead", error)
            return era_of_round(the_round.open_time)
        return None

    def _require_served(self, the_round: Round, current: Round | None, version: str) -> None:
        """Make sure that live data of a round that is not the current one is really that round's."""
        if version == "latest":
            version = self.latest_version()
        live = f"{version}/{ROLES['live']}"
        if current is not None and the_round.number > current.number:
            msg = f"{the_round} has not opened yet; the current one is {current}"
            raise RoundClosedError(msg)
        if not self._exists(live, the_round.number):
            recent = range(current.number, max(current.number - _RECENT_ROUNDS, 0), -1) if current else range(0)
            served = [str(number) for number in recent if self._exists(live, number)]
            msg = f"the live data of {the_round} is no longer served; served are: {', '.join(served) or 'none'}"
            raise RoundClosedError(msg)
        if current is None:
            return
        wanted, now = (self._identity(live, number) for number in (the_round.number, current.number))
        if wanted.is_same(now):
            msg = f"the live data of {the_round} is no longer served: for it, the server sends the file of {current}"
            raise RoundClosedError(msg)

    def _identity(self, name: str, round_number: int) -> RemoteFile:
        return remote_identity(
            name,
            lambda: self._presign(name, round_number),
            timeout=self._client.timeout,
            policy=self._client.policy,
        )

    def _exists(self, name: str, round_number: int) -> bool:
        try:
            self._client.policy.retrying(f"querying {name}")(self._presign, name, round_number)
        except MissingError:
            return False
        return True

    def _presign(self, name: str, round_number: int | None) -> str:
        """Query, once, the signed address of a file: a download repeats this for every connection."""
        variables = {"filename": name, "round": round_number, "tournament": CLASSIC}
        answer = self._client.call_once(
            f"querying the address of {name}", lambda: self._client.query(_DATASET, variables)["dataset"]
        )
        if not isinstance(answer, str) or not answer.startswith(("https://", "http://")):
            msg = f"{self._client.url}: the answer for {name} is not an address"
            raise ProtocolError(msg)
        return answer


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version[1:].split("."))


def _versions(names: list[str]) -> dict[str, set[str]]:
    """Every version with its files."""
    versions: dict[str, set[str]] = {}
    for name in names:
        version, _, file_name = name.partition("/")
        if re.fullmatch(r"v\d+(\.\d+)*", version):
            versions.setdefault(version, set()).add(file_name)
    return versions


def _newest_complete(names: list[str], url: str) -> str:
    # a version that is still being published lists some of its files: it is not the newest yet
    complete = [version for version, files in _versions(names).items() if files.issuperset(ROLES.values())]
    if not complete:
        msg = f"{url} lists no dataset version with all of {', '.join(ROLES.values())} (listed: {', '.join(names)})"
        raise ProtocolError(msg)
    return max(complete, key=_version_key)


def _listed_version(version: str, names: list[str]) -> str:
    versions = _versions(names)
    missing = [name for name in ROLES.values() if name not in versions.get(version, set())]
    if missing:
        listed = ", ".join(sorted(versions, key=_version_key, reverse=True))
        msg = f"dataset version {version} does not have {', '.join(missing)}; listed versions: {listed}"
        raise NotFoundError(msg)
    return version


def _check_live(path: Path, the_round: Round) -> Content:
    """Check that a live file has live rows of one era, and that the era fits the round."""
    import pyarrow.compute as pc  # heavy, and needed by tasks only
    import pyarrow.parquet as pq

    content = check_parquet(path)
    missing = {"id", "era", "data_type"}.difference(content.columns)
    if missing:
        msg = f"not live data: column {', '.join(sorted(missing))} is missing"
        raise ContentError(msg)
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["id", "era", "data_type"])
    eras, types = (pc.unique(table[name]).to_pylist() for name in ("era", "data_type"))
    if len(eras) != 1 or types != ["live"]:
        msg = f"not live data of one era: {table.num_rows} rows, eras {eras[:3]}, data types {types[:3]}"
        raise ContentError(msg)
    if pc.count_distinct(table["id"], mode="all").as_py() != table.num_rows:
        msg = "not live data: ids occur more than once"
        raise ContentError(msg)
    # an era may also be named "X"; a number is a week and must be the round's, or the server sent another round's data
    if str(eras[0]).isdecimal():
        week = week_of_era(max(int(eras[0]), 1))
        if abs(week - the_round.open_time.date()) > _ERA_TOLERANCE:
            msg = f"live data of another round: its era {eras[0]} is the week of {week}, which does not fit {the_round}"
            raise ContentError(msg)
    return content
