"""What hypothesis does to a file: damage as disks and networks do it, and tables of any types and values."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tests.fuzz.corpus import KINDS, parquet_bytes, table_of

_NUMBERS = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
_PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b",",
    b'"',
    b"nan",
    b"-1e99",
    b"PAR1",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\x15\x00",
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, other: bytes = b"") -> bytes:
    """Damage a file in one to four places: bytes turned, numbers put in, pieces cut, doubled, or taken from another."""
    changed = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        size = len(changed)
        # what describes the rest stands at the end of a zip and of a parquet file, at the beginning of a CSV
        place = draw(st.sampled_from(["anywhere", "anywhere", "end", "begin"]))
        near = min(size, 400)
        low, high = {"anywhere": (0, size), "end": (size - near, size), "begin": (0, near)}[place]
        position = draw(st.integers(low, max(high - 1, low)))
        match draw(st.sampled_from(["turn", "turn", "number", "piece", "cut", "double", "other", "end"])):
            case "turn" if size:
                changed[min(position, size - 1)] ^= 1 << draw(st.integers(0, 7))
            case "number":
                form = draw(st.sampled_from(["<B", "<H", "<L", "<L", "<Q"]))
                number = draw(st.sampled_from(_NUMBERS)) & (2 ** (8 * struct.calcsize(form)) - 1)
                packed = struct.pack(form, number)
                changed[position : position + len(packed)] = packed
            case "piece":
                changed[position : position + draw(st.sampled_from([0, 1, 4]))] = draw(st.sampled_from(_PIECES))
            case "cut":
                del changed[position : position + draw(st.sampled_from([1, 2, 8, 100, 4_000]))]
            case "double":
                changed[position:position] = changed[position : position + draw(st.sampled_from([1, 30, 300]))]
            case "other":
                begin = draw(st.integers(0, len(other)))
                length = draw(st.sampled_from([4, 40, 400]))
                changed[position : position + length] = other[begin : begin + length]
            case "end":
                del changed[position:]
            case _:
                pass
    return bytes(changed)


@st.composite
def any_table(draw: st.DrawFn, kind: str) -> bytes:
    """Write a parquet file whose columns may be of any type, in any order, some missing, some twice, in any way."""
    columns = {name: table_of(kind)[name] for name in table_of(kind).column_names}
    rows = len(columns["id"])
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(list(columns)))
        columns[name] = _values(draw, rows) if draw(st.booleans()) else KINDS[draw(st.sampled_from(list(KINDS)))](rows)
    names = list(columns)
    if draw(st.booleans()):
        names = draw(st.permutations(names))
    names = names[: draw(st.sampled_from([len(names)] * 5 + [0, 1, 3]))]
    if names and draw(st.integers(0, 9)) == 0:
        names = [*names, draw(st.sampled_from(names))]
    table = pa.Table.from_arrays([columns[name] for name in names], names=list(names))
    table = table.slice(0, draw(st.sampled_from([rows] * 5 + [0, 1, rows // 2])))
    try:
        return parquet_bytes(
            table,
            compression=draw(st.sampled_from(["snappy", "zstd", "none", "gzip"])),
            row_group_size=draw(st.sampled_from([1, 3, 1_000])),
            use_dictionary=draw(st.booleans()),
            write_statistics=draw(st.booleans()),
            data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
            write_page_checksum=draw(st.booleans()),
        )
    except pa.ArrowException:
        return b"PAR1"  # not every type can be written


def _values(draw: st.DrawFn, rows: int) -> Any:
    match draw(st.sampled_from(["text", "float", "int"])):
        case "text":
            texts = st.one_of(st.none(), st.text(max_size=5), st.sampled_from(["era1", "eraX", "train", "live", "n1"]))
            some = draw(st.lists(texts, min_size=1, max_size=6))
            return pa.array([some[row % len(some)] for row in range(rows)], pa.string())
        case "float":
            some = draw(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=1, max_size=6))
            return pa.array(
                [some[row % len(some)] for row in range(rows)], draw(st.sampled_from([pa.float32(), pa.float64()]))
            )
        case _:
            numbers = draw(st.lists(st.integers(-128, 127), min_size=1, max_size=6))
            return pa.array(np.resize(np.array(numbers, np.int8), rows))
