"""The Numerai API made safe: every call ends in time, in a right answer or in an error that says what to do.

The calls and their queries are numerapi's; how they travel is ours. numerapi sends every query through its method
``raw_query``, which knows no time limit, one address for the whole process, and turns a refused connection, a refused
key and a busy server alike into ``KeyError: 'data'``. :class:`Tournament` gives the client a ``raw_query`` of its own,
so that each object has its own address (no module global is changed, and several can be used at once), each request a
deadline, and each failure the error of its kind.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from numerai_pipeline.content_checks import Check, Content, ContentError, check_for, check_parquet
from numerai_pipeline.downloads import (
    Patience,
    RemoteFile,
    check_status,
    describe_failure,
    fetch,
    received_blocks,
    remote_identity,
)
from numerai_pipeline.errors import (
    CredentialsError,
    NetworkError,
    NotFoundError,
    PipelineError,
    ProtocolError,
    RoundClosedError,
)
from numerai_pipeline.raw_dataset import RawDataset, RawFile
from numerai_pipeline.rounds import era_of_round, week_of_era

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numerai_pipeline.run_layout import DataLayout

log = logging.getLogger(__name__)

CLASSIC = 8
"""Numerai's number of the classic tournament."""
ROLES = {
    "features": "features.json",
    "train": "train.parquet",
    "validation": "validation.parquet",
    "live": "live.parquet",
}
"""The files of a run, by role."""

EXTRAS = {
    "example_validation": "validation_example_preds.parquet",
    "example_live": "live_example_preds.parquet",
    "meta_model": "meta_model.parquet",
    "benchmark_validation": "validation_benchmark_models.parquet",
    "benchmark_live": "live_benchmark_models.parquet",
}
"""What models are measured against, by role; a version need not have any of it."""

_CURRENT = 0
_ERA_TOLERANCE = timedelta(days=21)
_LARGEST_REPLY = 64 * 2**20
_RECENT_ROUNDS = 5
_Result = TypeVar("_Result")

# only what is needed: numerapi's list_rounds asks for some forty fields of every round there ever was
_ROUNDS = """
    query($tournament: Int $number: Int) {
        rounds(tournament: $tournament number: $number) { number openTime closeTime closeStakingTime }
    }"""
_PAYOUTS = """
    query($tournament: Int $number: Int) {
        rounds(tournament: $tournament number: $number) { number roundScoreConfigs { name isPayout totalScoreDays } }
    }"""
_DATASET = """
    query($filename: String! $round: Int $tournament: Int) {
        dataset(filename: $filename round: $round tournament: $tournament)
    }"""


@dataclass(frozen=True)
class Round:
    """A round of the tournament.

    Attributes
    ----------
    number : int
    open_time, close_time : datetime
        Between these, submissions count for it; both know that they are UTC.
    """

    number: int
    open_time: datetime
    close_time: datetime

    def __str__(self) -> str:
        return f"round {self.number} ({self.open_time:%a %Y-%m-%d %H:%M} to {self.close_time:%a %Y-%m-%d %H:%M} UTC)"


class _RefusedQueryError(ValueError):
    """The server understood the query and refused it (numerapi uses ValueError for this, and so its methods do)."""


class _NoRoundError(NotFoundError):
    """The server says that no round is open just now."""


class _MissingError(NotFoundError):
    """The server says that it does not have this file or round."""


class Tournament:
    """Numerai's classic tournament, or a practice season that speaks its protocol.

    Parameters
    ----------
    api_url : str
        Address of the API.
    timeout : float
        Seconds within which every query must be answered; for downloads, seconds without a byte.
    patience : Patience, optional
        How often a call is tried.
    keys : (str, str), optional
        Public id and secret key. They are sent only with calls that need them and never told.
    """

    def __init__(
        self,
        api_url: str,
        *,
        timeout: float,
        patience: Patience | None = None,
        keys: tuple[str, str] | None = None,
    ) -> None:
        import numerapi  # heavy, and needed by tasks only

        self._url = api_url.rstrip("/")
        self._timeout = timeout
        self._patience = patience or Patience()
        self._keys = keys
        # without keys of any kind, numerapi would read a .env file found near it into this process's environment
        client: Any = numerapi.NumerAPI
        self._api = client("unused", "unused", verbosity="warning", show_progress_bars=False)
        self._api.token = keys
        self._api.raw_query = self._raw_query

    def list_datasets(self, round_number: int | None = None) -> list[str]:
        """Name the files that are served for a round, the current one by default, such as ``v5.3/train.parquet``."""
        names = self._call("listing the datasets", lambda: self._api.list_datasets(round_number))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            msg = f"{self._url}: the list of datasets is not a list of names: {str(names)[:200]}"
            raise ProtocolError(msg)
        return names

    def latest_version(self) -> str:
        """Name the newest dataset version that has all files of a run: v5.10 is newer than v5.9."""
        return _newest_complete(self.list_datasets(), self._url)

    def current_round(self) -> Round | None:
        """Give the round that Numerai calls current; None when it says that there is none just now."""
        try:
            found = self._rounds(_CURRENT)
        except _NoRoundError:
            return None
        return found[0] if found else None

    def round_by_number(self, number: int) -> Round:
        """Give the round of this number.

        Raises
        ------
        NotFoundError
            When there is none.
        """
        for found in self._rounds(number):
            if found.number == number:
                return found
        current = self.current_round()
        msg = f"round {number} does not exist" + (f"; the current one is {current}" if current else "")
        raise NotFoundError(msg)

    def round_at(self, moment: datetime) -> Round | None:
        """Give the round a moment belongs to; None when there is none (yet).

        A round opens "no earlier than" its hour, so a run scheduled for that hour may be a little early: a moment
        belongs to the round that was open then and opened on the same day, else to the one that opens later on that
        day, else to one still open from an earlier day.

        Parameters
        ----------
        moment : datetime
            Must know its time zone.
        """
        if moment.tzinfo is None:
            msg = f"{moment.isoformat()} does not know its time zone"
            raise ValueError(msg)
        moment = moment.astimezone(UTC)
        rounds = self._rounds(None)
        open_then = [found for found in rounds if found.open_time <= moment < found.close_time]
        opened_today = [found for found in open_then if found.open_time.date() == moment.date()]
        opening_today = [
            found for found in rounds if found.open_time > moment and found.open_time.date() == moment.date()
        ]
        # from noon on, the day's own round comes before one left open from the day before
        candidates = opened_today or (opening_today if moment.hour >= 12 else []) or open_then or opening_today
        return max(candidates, key=lambda found: found.open_time, default=None)

    def round_opened_between(self, start: datetime, end: datetime) -> Round | None:
        """Give the round that opens at or after ``start`` and before ``end``; None when it is not announced yet.

        Cheap as long as there is nothing later: the list of all rounds is asked for only when the current round does
        not tell.
        """
        current = self.current_round()
        if current is not None and current.open_time < start:
            return None
        try:
            candidates = self._rounds(None) if current is None or current.open_time >= end else [current]
        except _NoRoundError:
            return None
        return min(
            (found for found in candidates if start <= found.open_time < end),
            key=lambda found: found.open_time,
            default=None,
        )

    def version_for(self, version: str, round_number: int) -> str | None:
        """Name the dataset version that a run of a round uses; None while not all its files are listed.

        Parameters
        ----------
        version : str
            The version asked for, such as ``v5.3``, or ``latest``.
        round_number : int

        Raises
        ------
        NotFoundError
            The version that was asked for does not exist.
        """
        try:
            names = self.list_datasets(round_number)
        except NotFoundError:  # it does not have the round's data yet, or says that no round is open
            return None
        if version == "latest":
            return _newest_complete(names, self._url)
        if version in _versions(names) and not _versions(names)[version].issuperset(ROLES.values()):
            return None
        return _listed_version(version, names)

    def remote_live(self, version: str, round_number: int) -> RemoteFile | None:
        """Say which live file of a version is served for a round; None when there is none."""
        try:
            return self._identity(f"{version}/{ROLES['live']}", round_number)
        except NotFoundError:
            return None

    def find_round(self, round_number: int | None, run_date: datetime | None) -> Round | None:
        """Give the round of a run: the one asked for, else its date's, else the current one.

        None means that the round of the date has not opened yet, or never was; or, without number and date, that no
        round is current.
        """
        if round_number is not None:
            return self.round_by_number(round_number)
        if run_date is not None:
            return self.round_at(run_date)
        return self.current_round()

    def download(
        self, name: str, destination: Path, round_number: int | None = None, check: Check | None = None
    ) -> RawFile:
        """Download a file of a round, the current one by default, verified and only when it must be.

        Parameters
        ----------
        name : str
            As :meth:`list_datasets` names it.
        destination : Path
        round_number : int, optional
        check : callable, optional
            Reads the finished file; chosen by the name's suffix when left out.

        Raises
        ------
        NotFoundError
            When the server does not have it for this round.
        """
        return fetch(
            name,
            lambda: self._presign(name, round_number),
            destination,
            timeout=self._timeout,
            check=check or check_for(name),
            about={"name": name},
            patience=self._patience,
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
    ) -> RawDataset:
        """Download everything a run of a round needs.

        Parameters
        ----------
        layout : DataLayout
            Where to: ``downloads/<source>/<version>/<name>``, and the live file in a folder of its round.
        source : str
            ``numerai`` or ``practice``.
        version : str
            Such as ``v5.3``, or ``latest``.
        round_number : int, optional
            The round; decides before ``run_date``.
        run_date : datetime, optional
            The run's date: its round is taken, never silently the current one.
        walk_forward : bool
            What to do for a round that is over and whose live data is not served any more: download today's training
            and validation files and name the round's era to predict, instead of failing.

        Raises
        ------
        NotFoundError
            The round or the version does not exist.
        RoundClosedError
            The round's live data is not served any more, or no round is current.
        """
        the_round = self.required_round(round_number, run_date)
        era = self._era_to_walk_to(the_round, version, walk_forward=walk_forward)
        # a round that is over has no files of its own: what is known today includes what was known then
        served_round = the_round.number if era is None else None
        names = self.list_datasets(served_round)
        version = _newest_complete(names, self._url) if version == "latest" else _listed_version(version, names)
        log.info("downloading %s for %s", version, the_round)
        folder = layout.downloads(f"{source}/{version}")

        def live_check(path: Path) -> Content:
            return _check_live(path, the_round)

        files = {}
        listed = _versions(names).get(version, set())
        for role, file_name in {**ROLES, **{role: name for role, name in EXTRAS.items() if name in listed}}.items():
            is_live = role == "live"
            of_the_round = file_name.startswith("live")
            if of_the_round and era is not None:
                continue
            where = folder / f"round-{the_round.number}" if of_the_round else folder
            files[role] = self.download(
                f"{version}/{file_name}",
                where / file_name,
                served_round,
                live_check if is_live else None,
            )
        days = self.payout_days(the_round.number)
        return RawDataset("v5", source, str(the_round.number), version, files, era, days)

    def payout_days(self, round_number: int) -> int | None:
        """Tell how many days ahead the target looks that a round pays on; None where the server does not tell."""
        variables = {"tournament": CLASSIC, "number": round_number}
        try:
            rounds = self._call(
                "asking what is paid", lambda: self._api.raw_query(_PAYOUTS, variables)["data"]["rounds"]
            )
            scores = [score for found in rounds for score in found["roundScoreConfigs"] if score["isPayout"]]
            by_correlation = [score for score in scores if "corr" in score["name"].lower()] or scores
            days = {int(score["totalScoreDays"]) for score in by_correlation}
        except (ProtocolError, KeyError, TypeError, ValueError) as error:
            log.warning("what round %d pays on cannot be read: %s", round_number, error)
            return None
        return days.pop() if len(days) == 1 else None

    def _era_to_walk_to(self, the_round: Round, version: str, *, walk_forward: bool) -> int | None:
        """Give the era of a round whose live data is gone; None for one whose live data is served."""
        current = self.current_round()
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

    def required_round(self, round_number: int | None, run_date: datetime | None) -> Round:
        """Give the round of a run as :meth:`find_round` does.

        Raises
        ------
        NotFoundError
            When there is none of this number or date.
        RoundClosedError
            When, with neither given, none is current.
        """
        found = self.find_round(round_number, run_date)
        if found is not None:
            return found
        if run_date is not None:
            msg = f"no round was open at the run's date {run_date.isoformat()}: give the number of the round you mean"
            raise NotFoundError(msg)
        msg = f"{self._url} says that no round is open just now: wait for the next one, or give a round's number"
        raise RoundClosedError(msg)

    def _require_served(self, the_round: Round, current: Round | None, version: str) -> None:
        """Make sure that live data of a round that is not the current one is really that round's."""
        if version == "latest":
            version = self.latest_version()
        live = f"{version}/{ROLES['live']}"
        if current is not None and the_round.number > current.number:
            msg = f"{the_round} has not opened yet; the current one is {current}"
            raise RoundClosedError(msg)
        if not self._has(live, the_round.number):
            recent = range(current.number, max(current.number - _RECENT_ROUNDS, 0), -1) if current else range(0)
            served = [str(number) for number in recent if self._has(live, number)]
            msg = f"the live data of {the_round} is not served any more; served are: {', '.join(served) or 'none'}"
            raise RoundClosedError(msg)
        if current is None:
            return
        wanted, now = (self._identity(live, number) for number in (the_round.number, current.number))
        if wanted.is_same(now):
            msg = (
                f"asked for the live data of {the_round}, the server sends that of {current}: it is not served any more"
            )
            raise RoundClosedError(msg)

    def _identity(self, name: str, round_number: int) -> RemoteFile:
        return remote_identity(
            name, lambda: self._presign(name, round_number), timeout=self._timeout, patience=self._patience
        )

    def _has(self, name: str, round_number: int) -> bool:
        try:
            self._patience.retrying(f"asking for {name}")(self._presign, name, round_number)
        except _MissingError:
            return False
        return True

    def _presign(self, name: str, round_number: int | None) -> str:
        """Ask, once, for the address of a file: whoever downloads from it tries again, with a new one."""
        variables = {"filename": name, "round": round_number, "tournament": CLASSIC}
        answer = self._once(f"asking for {name}", lambda: self._api.raw_query(_DATASET, variables)["data"]["dataset"])
        if not isinstance(answer, str) or not answer.startswith(("https://", "http://")):
            msg = f"{self._url}: the answer for {name} is not an address"
            raise ProtocolError(msg)
        return answer

    def _rounds(self, number: int | None) -> list[Round]:
        variables = {"tournament": CLASSIC, "number": number}
        answer = self._call("asking for rounds", lambda: self._api.raw_query(_ROUNDS, variables)["data"]["rounds"])
        try:
            return [_parsed_round(fields) for fields in answer or [] if fields and fields["openTime"]]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self._url}: cannot read the list of rounds ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None

    def _call(self, what: str, function: Callable[[], _Result]) -> _Result:
        """Call numerapi, again when that can help."""
        result: _Result = self._patience.retrying(what)(self._once, what, function)
        return result

    def _once(self, what: str, function: Callable[[], _Result]) -> _Result:
        """Call numerapi, with its failures told apart."""
        try:
            return function()
        except _RefusedQueryError as error:
            raise _refusal(self._url, what, str(error)) from None
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            # numerapi reads the replies without looking
            msg = f"{self._url}: {what}: the reply lacks what was asked for ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None

    def _raw_query(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        authorization: bool = False,
        **_retries: Any,
    ) -> dict[str, Any]:
        """Send a query as ``numerapi.NumerAPI.raw_query`` does, once, within the time limit."""
        headers = {"Accept": "application/json"}
        if authorization:
            if self._keys is None:
                msg = "this needs the Numerai keys: set NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY"
                raise CredentialsError(msg)
            headers["Authorization"] = f"Token {'$'.join(self._keys)}"
        body = {"query": query, "variables": dict(variables or {})}
        deadline = time.monotonic() + self._timeout
        try:
            with requests.post(self._url, json=body, headers=headers, timeout=self._timeout, stream=True) as response:
                return self._reply(response, self._read_until(response, deadline))
        except requests.RequestException as error:
            msg = f"{self._url}: {describe_failure(error)}"
            raise NetworkError(msg) from None

    def _read_until(self, response: requests.Response, deadline: float) -> bytes:
        """Read a reply until the deadline, however it drips: requests' own limit begins anew with each byte."""
        content = bytearray()
        for block in received_blocks(response, self._url):
            content += block
            if time.monotonic() > deadline:
                msg = f"{self._url}: the reply was not complete within {self._timeout:g} s"
                raise NetworkError(msg)
            if len(content) > _LARGEST_REPLY:
                msg = f"{self._url}: the reply is larger than {_LARGEST_REPLY:,} bytes"
                raise ProtocolError(msg)
        return bytes(content)

    def _reply(self, response: requests.Response, content: bytes) -> dict[str, Any]:
        status = response.status_code
        if status == 401:
            raise _keys_refused(self._url, "401")
        if status == 429 or status >= 500:
            check_status(response, self._url)
        try:
            reply = json.loads(content)
        except ValueError:
            check_status(response, self._url)
            kind = response.headers.get("Content-Type", "of no type")
            msg = f"{self._url}: the reply is not JSON ({kind}); is the API under maintenance?"
            raise NetworkError(msg) from None
        if not isinstance(reply, dict):
            msg = f"{self._url}: the reply is not a JSON object"
            raise ProtocolError(msg)
        if reply.get("errors"):
            raise _RefusedQueryError(_messages(reply["errors"]))
        check_status(response, self._url)
        return reply


def _messages(errors: Any) -> str:
    """Put the errors of a GraphQL reply in one line: a list of objects with messages, or one with a detail."""
    listed = errors if isinstance(errors, list) else [errors]
    texts = [
        str(error.get("message") or error.get("detail") or error) if isinstance(error, dict) else str(error)
        for error in listed
    ]
    return "; ".join(texts)


def _refusal(url: str, what: str, said: str) -> PipelineError:
    """Choose the error for what the server said: its messages are all that tells refusals apart."""
    if re.search(r"not open for submissions|no (active|current|open) round", said, re.IGNORECASE):
        return _NoRoundError(f"{url}: {what}: {said}")
    if re.search(
        r"not found|not available|not exist|no such|(invalid|unknown) (round|file|dataset)", said, re.IGNORECASE
    ):
        return _MissingError(f"{url}: {what}: {said}")
    if re.search(r"unauthori[sz]ed|authenticat|credential|api key|session|permission", said, re.IGNORECASE):
        return _keys_refused(url, said)
    return ProtocolError(f"{url}: {what}: the server refused it: {said}")


def _keys_refused(url: str, said: str) -> CredentialsError:
    msg = (
        f"{url}: the Numerai keys were refused ({said}): check the connection numerai_default (for a practice season"
        " numerai_practice), or NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY"
    )
    return CredentialsError(msg)


def _parsed_round(fields: Mapping[str, Any]) -> Round:
    # submissions count until the deadline for stakes (numerapi's check_round_open goes by it, too)
    closes = fields.get("closeStakingTime") or fields["closeTime"]
    return Round(int(fields["number"]), _parsed_moment(fields["openTime"]), _parsed_moment(closes))


def _parsed_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


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
    # a version that is only being published lists some of its files: it is not the newest yet
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
    """Check that a live file holds live rows of one era, and that the era fits the round."""
    import pyarrow.compute as pc  # heavy, and needed by tasks only
    import pyarrow.parquet as pq

    content = check_parquet(path)
    missing = {"id", "era", "data_type"}.difference(content.columns)
    if missing:
        msg = f"not live data: it has no column {', '.join(sorted(missing))}"
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
    # an era may also be called "X"; a numbered one is a week and must be the round's, or the server sent another's data
    if str(eras[0]).isdecimal():
        week = week_of_era(max(int(eras[0]), 1))
        if abs(week - the_round.open_time.date()) > _ERA_TOLERANCE:
            msg = f"live data of another round: its era {eras[0]} is the week of {week}, which does not fit {the_round}"
            raise ContentError(msg)
    return content
