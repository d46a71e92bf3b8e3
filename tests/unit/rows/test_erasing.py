"""Rows taken out of parts and kept out of files, column by column."""

import io
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from services.dataset.erasure.domain import digest_of
from sluice.rows import erasing
from sluice.rows.checking import Rules
from sluice.rows.columns import CANONICAL
from sluice.rows.convert import convert
from sluice.rows.parts import encode
from sluice.rows.recall import Forgotten

ROWS = [
    {"text": f"t{number}", "id": str(number), "group": f"P{number % 3}" if number % 4 else None, "tags": tags}
    for number, tags in enumerate([["a"], None, ["b", "a"], [], ["c"], ["b"]] * 4)
]


def table(rows):
    return pa.Table.from_pylist(rows, schema=CANONICAL["pretrain"])


def forgotten(column, *values):
    return Forgotten("salt", [digest_of("salt", column, value) for value in values])


@pytest.mark.parametrize(
    ("column", "values", "goes"),
    [
        ("id", {"1", "5", "nobody"}, lambda row: row["id"] in ("1", "5")),
        ("group", {"P1"}, lambda row: row["group"] == "P1"),
        ("tags", {"a", "c"}, lambda row: set(row["tags"] or []) & {"a", "c"}),
        ("group", {"P"}, lambda row: False),
        ("group", {"P0", "P1", "P2"}, lambda row: row["group"]),
    ],
)
def test_what_is_left_is_as_if_the_others_had_never_been(column, values, goes):
    part, left = encode(table(ROWS)), [row for row in ROWS if not goes(row)]
    blank = sum(not row[column] for row in ROWS)
    assert erasing.count(io.BytesIO(part.content), column, values) == (len(ROWS) - len(left), blank)
    new, wanted = erasing.without(io.BytesIO(part.content), column, values), encode(table(left))
    assert (new.row_count, new.split_rows, new.assets) == (wanted.row_count, wanted.split_rows, wanted.assets)
    read = pyarrow.parquet.read_table
    assert read(io.BytesIO(new.content)).equals(read(io.BytesIO(wanted.content)))
    known = erasing.recalled(table(ROWS), forgotten(column, *values))
    assert [row for row, gone in zip(ROWS, known, strict=True) if not gone] == left


def test_a_part_without_the_column_has_no_such_rows():
    assert erasing.count(io.BytesIO(encode(table(ROWS)).content), "patient", {"P1"}) == (0, len(ROWS))


def test_a_part_may_lose_all_and_stays_readable():
    empty = erasing.without(io.BytesIO(encode(table(ROWS[:3])).content), "id", {"0", "1", "2"})
    assert (empty.row_count, set(empty.split_rows.values())) == (0, {0})
    assert erasing.count(io.BytesIO(empty.content), "id", {"0"}) == (0, 0)


def test_of_rows_put_aside_better_one_too_many():
    raw = [
        '{"group": "P17"}',
        '{"patient": "P17"}',
        '{"group": "P170"}',
        "broken P17",
        '{"id": 17}',
        '{"gruop": "P17"}',
    ]
    lines = b"".join(json.dumps({"row": 1, "content": each}).encode() + b"\n" for each in raw)
    left, gone = erasing.sifted(lines, ["group", "patient"], {"P17"})
    assert ([json.loads(line)["content"] for line in left.splitlines()], gone) == (
        ['{"group": "P170"}', '{"id": 17}'],
        4,
    )


def test_a_broken_row_is_known_by_its_escapes_too():
    raw = ['{"name": "\\u5F20\\u4e09", "text": ', '{"name": "张三", "text": ', '{"name": "\\u5F20", "text": ']
    lines = b"".join(json.dumps({"row": 1, "content": each}).encode() + b"\n" for each in raw)
    left, gone = erasing.sifted(lines, ["group"], {"张三"})
    assert gone == 2 and json.loads(left)["content"] == raw[2]


def test_a_file_comes_in_without_what_was_forgotten():
    content = b"".join(json.dumps({"patient": f"P{number}", "text": "t"}).encode() + b"\n" for number in range(10))
    wrong = b'{"patient": "P3", "txt": 1}\n{"patient": "P4", "txt": 1}\n'
    aside, parts = [], []
    rules = Rules("pretrain", {"patient": "group"}, quarantine=True, forgotten=forgotten("group", "P3", "P5"))
    outcome = convert(io.BytesIO(content + wrong), "a.jsonl", rules, parts.append, aside=aside.append)
    assert (outcome.row_count, outcome.forgotten, outcome.filtered, outcome.put_aside) == (8, 3, 0, 1)
    assert b"P4" in b"".join(aside) and b"P3" not in b"".join(aside)
