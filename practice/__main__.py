"""Start the simulator: ``python -m practice``."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import uvicorn

from practice.accounts import SCOPES, Account
from practice.faults import FaultQueue, RequestLog
from practice.model import SIZES, FeatureSet, SeasonSize
from practice.rounds import CalendarName
from practice.season import VERSION, Season
from practice.server import address_of, create_app, listening_socket, server_config
from practice.submission_store import SubmissionStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from types import FrameType


class _AnnouncedServer(uvicorn.Server):
    """Prints its address as soon as it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(f"simulator ready at {address_of(sockets[0])}", flush=True)


def _moment(text: str) -> datetime:
    """Read a day, which stands for 13:00 UTC, or a moment."""
    moment = datetime.fromisoformat(text)
    if "T" not in text and " " not in text:
        moment = moment.replace(hour=13)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _of_sizes(value: Callable[[SeasonSize], object]) -> str:
    of_default, of_v53 = (value(size) for size in SIZES.values())
    return f" (default: {of_default})" if of_default == of_v53 else f" (default: {of_default}; v5.3: {of_v53})"


def _add_size_option(
    parser: argparse.ArgumentParser, field: str, kind: type, description: str, metavar: str | None = None
) -> None:
    """Add an option for a field of the size; without it, the field keeps the value of the size's name."""
    parser.add_argument(
        f"--{field.replace('_', '-')}",
        type=kind,
        metavar=metavar,
        default=argparse.SUPPRESS,
        help=description + _of_sizes(lambda size: getattr(size, field)),
    )


def _size(chosen: argparse.Namespace) -> SeasonSize:
    """Make the size of the options.

    Raises
    ------
    ValueError
        Such a season is impossible.
    """
    given = vars(chosen)
    fields = {field.name: given[field.name] for field in dataclasses.fields(SeasonSize) if field.name in given}
    if "features" in given:
        fields |= dict(zip(("small", "medium", "all_features"), chosen.features, strict=True))
    return dataclasses.replace(SIZES[chosen.size], **fields)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m practice",
        description="Serve generated Numerai rounds over Numerai's protocol. When the server accepts connections, it"
        " prints one line: simulator ready at http://HOST:PORT",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--season-dir",
        type=Path,
        default=Path.home() / ".cache" / "numerai-practice",
        help="folder in which generated files are kept",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="default",
        help="default: a season for a first run. v5.3: as many eras, rows and features as Numerai's v5.3 in July 2026,"
        " and as weak effects; its files are generated within minutes and kept. The options up to --missing-share"
        " change single values of it",
    )
    _add_size_option(parser, "rows_per_era", int, "rows of an era; at size v5.3 of the last one, as eras grow")
    _add_size_option(parser, "train_eras", int, "eras of train.parquet")
    _add_size_option(
        parser,
        "validation_eras",
        int,
        "eras of validation.parquet in the season's first round; it grows by one a week",
    )
    parser.add_argument(
        "--features",
        type=int,
        nargs=3,
        metavar=("SMALL", "MEDIUM", "ALL"),
        default=argparse.SUPPRESS,
        help="features of each feature set" + _of_sizes(lambda size: f"{size.small} {size.medium} {size.all_features}"),
    )
    parser.add_argument(
        "--feature-set",
        choices=get_args(FeatureSet),
        dest="generated",
        default=argparse.SUPPRESS,
        help="the largest feature set that the files have; features.json lists all. A run with a larger one fails, as"
        " the files do not have its columns" + _of_sizes(lambda size: size.generated),
    )
    _add_size_option(
        parser,
        "group_lean",
        float,
        "hide groups of rows in the features, which t-SNE finds and products of two features do not show, and"
        " correlate the targets with membership by this much; 0 hides none",
        metavar="0..0.9",
    )
    _add_size_option(
        parser,
        "missing_share",
        float,
        "share of missing values in the features that have any; with 0, all features are complete",
        metavar="0..0.5",
    )
    parser.add_argument("--seed", type=int, default=67, help="seed of the season")
    parser.add_argument(
        "--today",
        type=_moment,
        help="stop the season's clock at this day or moment (UTC, ISO 8601); the real time if not given",
    )
    parser.add_argument(
        "--calendar",
        choices=get_args(CalendarName),
        default="always-open",
        help="always-open: a round closes when the next one opens. strict: Numerai's hours, 12:00 to 13:00 UTC on"
        " weekdays, Saturday 12:00 to Sunday 14:00, opening up to 70 minutes late",
    )
    parser.add_argument(
        "--served-rounds", type=int, default=5, help="rounds whose data is served, with the current one"
    )
    parser.add_argument(
        "--versions", nargs="+", default=[VERSION], metavar="VERSION", help="dataset versions that are listed"
    )
    parser.add_argument(
        "--account",
        metavar="PUBLIC:SECRET",
        help="keys of an account with the models --models; their scores are on /practice/standings. Other users of this"
        " machine can see the keys: invent some",
    )
    parser.add_argument("--models", type=_names, default=(), metavar="NAME,NAME", help="the account's models")
    parser.add_argument(
        "--scopes",
        type=_names,
        default=SCOPES,
        metavar="SCOPE,SCOPE",
        help="scopes of the account's keys; all if not given",
    )
    parser.add_argument(
        "--controls", action="store_true", help="let tests queue faults and read the request log under /practice/"
    )
    return parser


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # the exception removes a partly written file
    sys.exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the current round's files, and serve until a signal stops the process."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        size = _size(chosen)
        season = Season(
            chosen.season_dir,
            size,
            chosen.seed,
            today=chosen.today,
            served_rounds=chosen.served_rounds,
            versions=chosen.versions,
            calendar=chosen.calendar,
        )
        if chosen.models and not chosen.account:
            parser.error("--models needs an --account: give one")
        accounts = [Account.of(chosen.account, chosen.models, chosen.scopes)] if chosen.account else []
        listening = listening_socket(chosen.host, chosen.port)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    if size.generated != "all":
        count = getattr(size, size.generated)
        print(
            f"the files have the {count:,} features of the set {size.generated} of {size.all_features:,}: a run with a"
            " larger set will miss its columns; for it, start again with another --feature-set",
            file=sys.stderr,
            flush=True,
        )
    season.prepare(lambda line: print(line, file=sys.stderr, flush=True))
    app = create_app(
        season,
        FaultQueue(),
        RequestLog() if chosen.controls else None,
        controls=chosen.controls,
        store=SubmissionStore(season, accounts),
    )
    _AnnouncedServer(server_config(app)).run(sockets=[listening])


if __name__ == "__main__":
    main()
