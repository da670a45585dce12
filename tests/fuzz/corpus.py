"""Generated files with names: damaged by a disk, malformed by a script, or forged by an attacker.

The fuzz tests read them unchanged, and use them as seeds of the mutations.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.dataset.raw_files import (
    TOURNAMENT,
    TRAINING,
    csv_table,
    features_json,
    tournament_rows,
    training_rows,
    v5_table,
)

Corpus = dict[str, bytes]

TRAINING_CSV = csv_table(training_rows()).encode()
TOURNAMENT_CSV = csv_table(tournament_rows()).encode()
_CENTRAL, _LOCAL, _END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def zip_of(
    members: list[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> bytes:
    """Zip these members in memory."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about duplicate names, which are intended
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in members:
                archive.writestr(name, content)
            archive.comment = comment
    return buffer.getvalue()


def _entry(name: str, mode: int = 0, extra: bytes = b"") -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.extra = extra
    return info


def _patched(content: bytes, mark: bytes, offset: int, form: str, *values: int) -> bytes:
    """Overwrite a field of each header with this signature."""
    changed = bytearray(content)
    start = changed.find(mark)
    while start >= 0:
        struct.pack_into(form, changed, start + offset, *values)
        start = changed.find(mark, start + 4)
    return bytes(changed)


def _named(name: bytes, flags: int = 0) -> bytes:
    """Zip one member under a name that zipfile itself would not write."""
    placeholder = "Q" * len(name)
    content = zip_of([(placeholder, b"x"), ("fine.csv", b"y")], zipfile.ZIP_STORED)
    content = content.replace(placeholder.encode(), name)
    if flags:
        content = _patched(_patched(content, _LOCAL, 6, "<H", flags), _CENTRAL, 8, "<H", flags)
    return content


def zips() -> Corpus:
    """Zips of the classic layout, valid and broken in all known ways."""
    members: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        (TRAINING, TRAINING_CSV),
        (f"folder/{TOURNAMENT}", TOURNAMENT_CSV),
    ]
    whole = zip_of(members)
    stored = zip_of(members, zipfile.ZIP_STORED)
    directory = whole.index(_CENTRAL)
    end = whole.rindex(_END)
    zeros = zip_of([("zeros.csv", bytes(17 * 2**20))])
    zip64 = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, 2**63 - 1, 2**62)
    zip64 += struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    found = {
        "whole": whole,
        "stored": stored,
        "nothing": b"",
        "a web page": b"<html>sorry</html>",
        "gzip": gzip.compress(TRAINING_CSV, mtime=0),
        "without members": zip_of([]),
        "folders only": zip_of([("a/", b""), ("a/b/", b"")]),
        "what macOS adds": zip_of([*members, ("__MACOSX/._x", b"x"), ("a/.DS_Store", b"x")]),
        "what macOS adds beside the files": zip_of(
            [*members, (f"._{TRAINING}", b"x"), (f"folder/._{TOURNAMENT}", b"x")]
        ),
        "what macOS adds in a folder": zip_of([*members, (f"folder/__MACOSX/._{TOURNAMENT}", b"x"), ("Icon\r", b"")]),
        "what Windows adds": zip_of([*members, ("folder/Thumbs.db", b"x"), ("desktop.ini", b"x")]),
        "system files only": zip_of([(f"__MACOSX/._{TRAINING}", b"x"), (".DS_Store", b"x")]),
        "a zip in a zip": zip_of([("inner.zip", whole)]),
        "something before it": b"#!/bin/sh\n" * 20 + whole,
        "something behind it": whole + b"\0" * 70_000,
        "twice in a row": whole + whole,
        "a comment": zip_of(members, comment=b"c" * 65_535),
        "a comment like an end": zip_of(members, comment=_END + bytes(18)),
        "cut in the data": whole[: directory // 2],
        "cut in the directory": whole[: directory + 20],
        "cut in the end": whole[:-5],
        "without its data": whole[directory:],
        "without its directory": whole[:directory] + whole[end:],
        "end only": whole[end:],
        "a directory that begins elsewhere": _patched(whole, _END, 16, "<L", 2**31),
        "a directory that begins before": _patched(whole, _END, 16, "<L", directory - 7),
        "a directory larger than the file": _patched(whole, _END, 12, "<L", 2**32 - 2),
        "more members than it has": _patched(whole, _END, 8, "<HH", 60_000, 60_000),
        "members claimed by zip64": whole[:end]
        + zip64
        + _patched(whole[end:], _END, 8, "<HHLL", *[0xFFFF] * 2, *[0xFFFFFFFF] * 2),
        "sizes left to zip64": _patched(whole, _CENTRAL, 20, "<LL", 2**32 - 1, 2**32 - 1),
        "sizes of nothing": _patched(whole, _CENTRAL, 20, "<LL", 0, 0),
        "sizes of 4 GB": _patched(whole, _CENTRAL, 20, "<LL", 2**32 - 2, 2**32 - 2),
        "a size that is too small": _patched(stored, _CENTRAL, 24, "<L", 5),
        "members that overlap": _patched(whole, _CENTRAL, 42, "<L", 0),
        "members beyond the file": _patched(whole, _CENTRAL, 42, "<L", 2**31 + 5),
        "wrong checksums": _patched(whole, _CENTRAL, 16, "<L", 7),
        "encrypted": _patched(_patched(whole, _CENTRAL, 8, "<H", 1), _LOCAL, 6, "<H", 1),
        "strongly encrypted": _patched(whole, _CENTRAL, 8, "<H", 0x41),
        "patched data": _patched(whole, _CENTRAL, 8, "<H", 0x20),
        "sizes behind the data": _patched(whole, _LOCAL, 6, "<H", 8),
        "a newer version": _patched(whole, _CENTRAL, 6, "<H", 99),
        "a date that is none": _patched(whole, _CENTRAL, 12, "<HH", 0xFFFF, 0xFFFF),
        "on another disk": _patched(whole, _CENTRAL, 34, "<H", 9),
        "names longer than the directory": _patched(whole, _CENTRAL, 28, "<H", 60_000),
        "other names in the local headers": _patched(whole, _LOCAL, 26, "<H", 3),
        "extra fields longer than the file": _patched(whole, _LOCAL, 28, "<H", 60_000),
        "bzip2": zip_of(members, zipfile.ZIP_BZIP2),
        "lzma": zip_of(members, zipfile.ZIP_LZMA),
        "stored, but declared as deflated": _patched(_patched(stored, _CENTRAL, 10, "<H", 8), _LOCAL, 8, "<H", 8),
        "deflated, but declared as stored": _patched(_patched(whole, _CENTRAL, 10, "<H", 0), _LOCAL, 8, "<H", 0),
        "zeros, a thousandfold": zeros,
        "a link": zip_of([*members, (_entry("link", 0o120777), b"/etc/passwd")]),
        "a pipe": zip_of([*members, (_entry("pipe", 0o010644), b"")]),
        "a device": zip_of([*members, (_entry("null", 0o020666), b"")]),
        "a broken zip64 field": zip_of([(_entry("a.csv", extra=struct.pack("<HHQ", 1, 4, 1)), b"x"), *members]),
        "a broken extra field": zip_of([(_entry("a.csv", extra=b"\x01\x00\xff\xff\x01"), b"x"), *members]),
        "the same name twice": zip_of([*members, (TRAINING, b"x")]),
        "the same name in capitals": zip_of([*members, (TRAINING.upper(), b"x")]),
        "a file that is a folder": zip_of([("a", b"x"), ("a/b.csv", b"y")]),
        "both tables twice": zip_of([*members, (f"x/{TRAINING}", b"x"), (f"y_{TOURNAMENT}", b"y")]),
        "many members": zip_of([(f"{number}.csv", b"") for number in range(1_200)]),
    }
    names = [b"../evil.csv", b"/etc/evil.csv", b"a/../../evil", b"C:evil.csv", b"a\\b.csv", b"a\0b.csv", b"a\nb.csv"]
    names += [b"n" * 300, b"d/" * 200 + b"x.csv", b"./", b"..", b".", b"con.csv", b"\xff\xfe\xfd.csv", b" ", b"~root"]
    found |= {f"the name {name[:20]!r}": _named(name) for name in names}
    found |= {f"the name {name!r}, declared as UTF-8": _named(name, 0x800) for name in (b"\xff\xfe", b"e\xcc\x81.csv")}
    return found


def parquet_bytes(table: pa.Table, **writing: Any) -> bytes:
    """Write a table as parquet, in memory."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **writing)
    return buffer.getvalue()


def table_of(kind: str, **replaced: Any) -> pa.Table:
    """Make a table as Numerai serves it, with columns replaced; None leaves one out."""
    eras = {"train": range(1, 9), "validation": range(9, 12), "live": range(12, 13)}
    return v5_table(kind, list(eras[kind]), replaced=replaced)


def parquets(kind: str = "train") -> Corpus:
    """Parquet files of today's layout, valid and broken in all known ways."""
    table = table_of(kind)
    rows = table.num_rows
    whole = parquet_bytes(table)
    footer = int.from_bytes(whole[-8:-4], "little")
    begins = len(whole) - 8 - footer
    plain = parquet_bytes(table, use_dictionary=False, compression="none", write_statistics=False)
    found = {
        "whole": whole,
        "nothing": b"",
        "the mark only": b"PAR1",
        "both marks": b"PAR1PAR1",
        "a web page": b"<html>sorry</html>" * 9,
        "a zip": zip_of([("train.parquet", whole)]),
        "without its end": whole[:-1],
        "cut in the footer": whole[: begins + footer // 2],
        "cut in the data": whole[: begins // 2],
        "without its data": b"PAR1" + whole[begins:],
        "without its beginning": whole[4:],
        "twice in a row": whole + whole,
        "something behind it": whole + b"\0" * 9,
        "encrypted": whole[:-4] + b"PARE",
        "data of zeros": b"PAR1" + bytes(begins - 4) + whole[begins:],
        "a footer of zeros": whole[:begins] + bytes(footer) + whole[-8:],
        "ids that are no text": plain.replace(f"{kind}00001".encode(), b"\xff\xfe\xfd" + b"\x80" * (len(kind) + 2)),
        "columns with names that are no text": whole.replace(b"feature_a", b"feat\xff\xfe\xfd_"),
        "a schema of Arrow's that is none": whole.replace(b"ARROW:schema", b"ARROW:schem_"),
        "page checksums": parquet_bytes(table, write_page_checksum=True),
        "wrong page checksums": _one_flipped(parquet_bytes(table, write_page_checksum=True), begins // 2),
        "no columns": parquet_bytes(table.select([])),
        "no rows": parquet_bytes(table.slice(0, 0)),
        "one row": parquet_bytes(table.slice(0, 1)),
        "a row group for each row": parquet_bytes(table, row_group_size=1),
        "pandas' words garbled": parquet_bytes(table.replace_schema_metadata({b"pandas": b'{"index_columns": [3'})),
        "the ids as pandas' index": parquet_bytes(
            table.rename_columns([*table.column_names[:-1], "__index_level_0__"])
        ),
        "very many columns": parquet_bytes(_widened(table, 600)),
        "a column twice": parquet_bytes(table.append_column("feature_a", table["feature_b"])),
        "an id twice": parquet_bytes(table_of(kind, id=pa.array(["x"] * rows))),
        "very long ids": parquet_bytes(table_of(kind, id=pa.array([f"{row}" * 9_000 for row in range(rows)]))),
    }
    lengths = {"nothing": 0, "one byte": 1, "more than there is": len(whole), "2 GB": 2**31 - 1, "4 GB": 2**32 - 1}
    found |= {
        f"a footer of {length}": whole[:-8] + struct.pack("<L", size) + b"PAR1" for length, size in lengths.items()
    }
    for codec in ("snappy", "gzip", "brotli", "lz4", "zstd", "none"):
        found[f"packed by {codec}"] = parquet_bytes(table, compression=codec)
    for version in ("1.0", "2.4", "2.6"):
        for page in ("1.0", "2.0"):
            found[f"version {version}, pages {page}"] = parquet_bytes(table, version=version, data_page_version=page)
    for column in ("id", "era", "data_type", "feature_a", "target"):
        found[f"without {column}"] = parquet_bytes(table.drop_columns([column]))
        for kind_name, make in KINDS.items():
            content = _written(table_of(kind, **{column: make(rows)}))
            if content is not None:
                found[f"{column} as {kind_name}"] = content
    return found


def _one_flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def _widened(table: pa.Table, columns: int) -> pa.Table:
    extra = pa.array(np.zeros(table.num_rows, np.int8))
    for number in range(columns):
        table = table.append_column(f"feature_x{number}", extra)
    return table


def _written(table: pa.Table) -> bytes | None:
    try:
        return parquet_bytes(table)
    except pa.ArrowException:
        return None  # this type cannot be written as parquet


def _cycle(values: list[Any], kind: Any) -> Callable[[int], Any]:
    return lambda rows: pa.array([values[row % len(values)] for row in range(rows)], kind)


KINDS: dict[str, Callable[[int], Any]] = {
    "nulls": pa.nulls,
    "missing text": lambda rows: pa.nulls(rows, pa.string()),
    "missing numbers": lambda rows: pa.nulls(rows, pa.float32()),
    "truths": _cycle([True, False, None], pa.bool_()),
    "int8": _cycle([0, 1, -128, 127], pa.int8()),
    "int8 with gaps": _cycle([0, None, 4], pa.int8()),
    "uint64": _cycle([0, 2**64 - 1], pa.uint64()),
    "int64": _cycle([-(2**63), 2**63 - 1, None], pa.int64()),
    "half floats": lambda rows: pa.array(np.linspace(0, 1, rows).astype(np.float16)),
    "doubles": _cycle([0.5, 1e-300, 1e300, None], pa.float64()),
    "NaN": _cycle([float("nan"), 0.25], pa.float32()),
    "infinite numbers": _cycle([0.25, float("inf"), float("-inf")], pa.float64()),
    "negative numbers": _cycle([-0.5, -0.0], pa.float32()),
    "decimals": _cycle([1, None], pa.decimal128(20, 5)),
    "a hair above one": _cycle([0.0, 1.0000001], pa.float32()),
    "a hair below zero": _cycle([-1e-45, 1.0], pa.float32()),
    "days": _cycle([1, 2**30], pa.date32()),
    "moments": _cycle([1, 2**60], pa.timestamp("ns", "UTC")),
    "spans of time": _cycle([1], pa.duration("ms")),
    "times of day": _cycle([1], pa.time64("us")),
    "text": _cycle(["a", "", "é", "\0", "x" * 300, None], pa.string()),
    "long text": _cycle(["a", "b"], pa.large_string()),
    "bytes": _cycle([b"\xff", b""], pa.binary()),
    "bytes of fixed length": _cycle([b"\xff\xfe"], pa.binary(2)),
    "long text in a dictionary": lambda rows: _cycle(["a", None], pa.large_string())(rows).dictionary_encode(),
    "text in a view": _cycle(["a", None], pa.string_view()),
    "text in a dictionary": lambda rows: _cycle(["a", "b", None], pa.string())(rows).dictionary_encode(),
    "numbers in a dictionary": lambda rows: _cycle([0.5, 1.0], pa.float32())(rows).dictionary_encode(),
    "lists": _cycle([[1, 2], [], None], pa.list_(pa.int8())),
    "lists of text": _cycle([["a"], []], pa.list_(pa.string())),
    "structures": _cycle([{"a": 1}, None], pa.struct([("a", pa.int8())])),
    "maps": _cycle([[("a", 1)], []], pa.map_(pa.string(), pa.int8())),
    "words for eras": _cycle(["era1", "eraX", "week 3", "0012"], pa.string()),
    "words for data types": _cycle(["train", "validation", "live", "tset"], pa.string()),
}
"""Columns of all Arrow types, and columns of the right type with wrong values."""


def csvs(whole: bytes) -> Corpus:
    """CSV files of the classic layout, valid and broken in all known ways."""
    text = whole.decode()
    header, *lines = text.splitlines()
    rest = "\n".join(lines) + "\n"
    first = lines[0].split(",")

    def with_first(**values: str) -> bytes:
        names = header.split(",")
        row = [values.get(name, value) for name, value in zip(names, first, strict=True)]
        return "\n".join([header, ",".join(row), *lines[1:], ""]).encode()

    found = {
        "whole": whole,
        "nothing": b"",
        "a line end": b"\n",
        "blanks": b"   \n\n  \n",
        "the header only": header.encode() + b"\n",
        "no header": rest.encode(),
        "no last line end": whole.rstrip(b"\n"),
        "cut in a line": whole[:-7],
        "carriage returns": whole.replace(b"\n", b"\r"),
        "lines of Windows": whole.replace(b"\n", b"\r\n"),
        "empty lines": whole.replace(b"\n", b"\n\n"),
        "a byte order mark": b"\xef\xbb\xbf" + whole,
        "UTF-16": text.encode("utf-16"),
        "Latin-1": whole.replace(b"n00", b"\xe9"),
        "zero bytes": whole.replace(b"0", b"\0", 3),
        "semicolons": whole.replace(b",", b";"),
        "tabs": whole.replace(b",", b"\t"),
        "a value too many": whole.replace(b"\n", b",1\n", 3),
        "a value too few": whole.replace(b",0.125", b"", 3),
        "a quote that does not end": whole.replace(b",", b',"', 20),
        "quotes": b"\n".join(b",".join(b'"%b"' % cell for cell in line.split(b",")) for line in whole.splitlines()),
        "a line end in quotes": whole.replace(first[0].encode(), b'"a\nb"', 1),
        "a column twice": whole.replace(b"feature2", b"feature1"),
        "a column without a name": whole.replace(b"feature2", b""),
        "names in quotes": whole.replace(b"feature2", b'"feature2"'),
        "a name in capitals": whole.replace(b"era,", b"Era,", 1),
        "blanks in the header": whole.replace(b",", b", ", 5),
        "a header of a megabyte": b"x" * 2**20 + b"\n" + whole,
        "a header with a field too long": b"id," + b"y" * 140_000 + whole[2:],
        "a header in a quote that does not end": b'"' + whole,
        "a header over two lines": whole.replace(b"feature2", b'"feat\nure2"', 1),
        "another file": b"id,probability\nl1,0.5\n",
        "an id twice": whole + (lines[0] + "\n").encode(),
        "no features": "\n".join(
            ",".join(line.split(",")[:3] + line.split(",")[-1:]) for line in text.splitlines()
        ).encode(),
        "a web page": b"<html>\n<body>sorry</body>\n</html>\n",
    }
    for value in (
        "",
        " ",
        "nan",
        "NA",
        "inf",
        "-inf",
        "1e999",
        "1e-999",
        "0x1p3",
        "1_000",
        "1,5",
        "½",
        "-0",
        "two",
        "1" * 400,
    ):
        found |= {
            f"the feature {value[:9]!r}": with_first(feature1=value),
            f"the target {value[:9]!r}": with_first(target=value),
            f"the era {value[:9]!r}": with_first(era=value),
        }
    for value in ("", " ", "x" * 70_000, "é", '""'):
        found[f"the id {value[:9]!r}"] = with_first(id=value)
    for value in ("", "TRAIN", "live", "null"):
        found[f"the data type {value!r}"] = with_first(data_type=value)
    for name in header.split(","):
        found[f"without {name}"] = whole.replace(name.encode(), b"x", 1)
    return found


def features() -> Corpus:
    """Descriptions of a dataset (``features.json``), valid and broken."""
    whole = features_json()
    text = json.dumps(whole).encode()
    found: dict[str, Any] = {
        "a list": [],
        "a number": 7,
        "no sets": {"targets": ["target"]},
        "no targets": {"feature_sets": whole["feature_sets"]},
        "sets in a list": {**whole, "feature_sets": [["feature_a"]]},
        "a set of nothing": {**whole, "feature_sets": {"small": []}},
        "a set of numbers": {**whole, "feature_sets": {"small": [1, 2]}},
        "a set of null": {**whole, "feature_sets": {"small": None}},
        "an empty set beside it": {**whole, "feature_sets": {**whole["feature_sets"], "v2_equivalent_features": []}},
        "a malformed set beside it": {**whole, "feature_sets": {**whole["feature_sets"], "rain": {"a": None}}},
        "malformed targets beside it": {**whole, "targets": [None, 7, "", "era", "target"]},
        "an empty set and others": {**whole, "feature_sets": {**whole["feature_sets"], "small": []}},
        "a feature twice": {**whole, "feature_sets": {"small": ["feature_a", "feature_a"]}},
        "a feature that is not there": {**whole, "feature_sets": {"small": ["feature_z"]}},
        "a feature that is none": {**whole, "feature_sets": {"small": ["era"]}},
        "half a character": {**whole, "feature_sets": {"small": ["feature_\ud800"]}, "targets": ["target_\udfff"]},
        "targets of null": {**whole, "targets": [None]},
        "a target that is not there": {**whole, "targets": ["target_z"]},
        "a target that is text": {**whole, "targets": ["era"]},
    }
    return {
        "whole": text,
        "nothing": b"",
        "cut": text[:-9],
        "UTF-16": json.dumps(whole).encode("utf-16"),
        "Latin-1": b'{"feature_sets": {"sm\xe9ll": []}}',
        "a byte order mark": b"\xef\xbb\xbf" + text,
        "very deep": b"[" * 100_000,
        "very deep maps": b'{"a":' * 100_000,
        "a number without end": b'{"targets": ' + b"9" * 5_000 + b"}",
        "NaN": b'{"targets": NaN}',
        **{name: json.dumps(content).encode() for name, content in found.items()},
    }


def predictions(ids: list[str]) -> Corpus:
    """Predictions of these ids, valid and broken."""
    rows = [f"{row_id},{0.3 + place / (3 * len(ids)):.6f}" for place, row_id in enumerate(ids)]

    def text(*lines: str, header: str = "id,prediction") -> bytes:
        return "\n".join([header, *lines, ""]).encode()

    whole = text(*rows)
    found = {
        "whole": whole,
        "as in 2018": text(*rows, header="id,probability"),
        "nothing": b"",
        "the header only": text(),
        "another header": text(*rows, header="id,score"),
        "a column more": text(*[f"{row},1" for row in rows], header="id,prediction,rank"),
        "the same column twice": text(*[f"{row},1" for row in rows], header="id,prediction,prediction"),
        "ids twice in the header": text(*rows, header="id,id"),
        "no last line end": whole.rstrip(b"\n"),
        "half of them": whole[: len(whole) // 2],
        "an id missing": text(*rows[:-1]),
        "an id twice": text(*rows, rows[0]),
        "an id too many": text(*rows, "unknown,0.5"),
        "another order": text(*reversed(rows)),
        "all the same": text(*[f"{row_id},0.5" for row_id in ids]),
        "ids that are no text": whole.replace(ids[0].encode(), b"\xff\xfe"),
        "zero bytes": whole.replace(b"0", b"\0"),
        "UTF-16": whole.decode().encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + whole,
        "a quote that does not end": whole.replace(b",", b',"', 3),
        "a value too many": whole.replace(b"\n", b",1\n", 4),
        "a value longer than a block": text(f"{'x' * 2_000_000},0.5"),
    }
    for value in (
        "",
        "nan",
        "inf",
        "-inf",
        "0",
        "1",
        "1.0000000000000002",
        "-0.1",
        "1.1",
        "1e999",
        "two",
        "null",
        "0.5e",
        " 0.5",
        "½",
    ):
        found[f"the value {value!r}"] = text(f"{ids[0]},{value}", *rows[1:])
    return found


def reports() -> dict[str, Corpus]:
    """Reports of tasks in JSON, valid and broken: file → name → content."""
    scores = {"rows": 9, "eras": 3, "logloss": 0.69, "consistency": 0.5, "correlation": 0.01}
    report = {"operation": "svm", "rows": {"training": 9}, "seconds": 1.5, "validation": scores, "chosen": {"c": 1}}
    row = {"model": "svm", "kind": "model", "rank": 1, "corr": 0.01, "most_like": "xgboost", "concordant": True}
    board = {"target": "target", "models": [row], "left_out": {"tpot": "it failed"}, "rank_correlations": {"svm": {}}}
    era = {"era": 9, "rows": 3, "corr": 0.1}
    evaluation = {"model": "svm", "by_era": [era], "distribution": {"edges": [0, 1], "validation": [3]}}
    facts: dict[str, Any] = {"source": "practice", "features": 5}
    facts |= {"training": {"rows": 9}, "tournament": {"rows": 3}, "unavailable_comparisons": {"meta_model": "404"}}
    whole: dict[str, dict[str, Any]] = {
        "reports/svm.json": {**report, "notes": ["so it went"], "peak_memory_mib": 99},
        "reports/adversarial_validation.json": {**report, "chosen": {"drift": [{"feature": "a", "auc": 0.5}]}},
        "reports/ensemble.json": {**report, "chosen": {"ensemble_selection": {"weights": {"svm": 1.0}}}},
        "reports/tpot.json": {**report, "chosen": {"search": {"candidates": [[1, 0.5]], "best": "svm"}}},
        "leaderboard.json": board,
        "reports/evaluation/svm.json": evaluation,
        "run.json": facts,
        "images/svm.json": {"image": "classic:1"},
    }
    return {file: _replaced_throughout(content) for file, content in whole.items()}


def _replaced_throughout(content: dict[str, Any]) -> Corpus:
    found: dict[str, Any] = {"whole": content, "a list": [content], "null": None}
    for field, known in content.items():
        for value in _OF_ANY_TYPE:
            found[f"{field}: {value!r:.20}"] = {**content, field: value}
            if isinstance(known, list):
                found[f"{field} of {value!r:.20}"] = {**content, field: [value]}
            if isinstance(known, dict):
                for inner in known:
                    found[f"{field}.{inner}: {value!r:.20}"] = {**content, field: {**known, inner: value}}
    texts = {name: json.dumps(entry).encode() for name, entry in found.items()}
    infinite = texts["whole"].replace(b"1", b"Infinity").replace(b"9", b"NaN")
    return texts | {"infinite": infinite, "very deep": b"[" * 100_000, "huge": b'{"seconds": ' + b"9" * 4_000 + b"}"}


_OF_ANY_TYPE: tuple[Any, ...] = (None, -1, 1.5, 1e300, "x", [], {}, True, 2**70, "é" * 9)


def manifests(path_name: str, content: bytes, digest: str) -> Corpus:
    """Manifests of a file, valid and broken."""
    whole = {"file": path_name, "sha256": digest, "bytes": len(content), "rows": 3, "columns": ["id"], "inputs": "abc"}
    found: dict[str, Any] = {"whole": whole, "a list": [whole], "null": None, "nothing in it": {}}
    for field in whole:
        for value in _OF_ANY_TYPE:
            found[f"{field}: {value!r:.20}"] = {**whole, field: value}
        found[f"without {field}"] = {name: value for name, value in whole.items() if name != field}
    found["more than we know"] = {**whole, "colour": "red"}
    texts = {name: json.dumps(entry).encode() for name, entry in found.items()}
    return texts | {
        "nothing": b"",
        "half of it": texts["whole"][:40],
        "no text": b"\xff\xfe\x00",
        "very deep": b"[" * 100_000,
        "an infinite size": texts["whole"].replace(b'"bytes": %d' % len(content), b'"bytes": Infinity'),
        "a size that is no number": texts["whole"].replace(b'"bytes": %d' % len(content), b'"bytes": NaN'),
        "a number without end": texts["whole"].replace(b'"bytes": %d' % len(content), b'"bytes": ' + b"9" * 5_000),
    }
