"""The columns vouch for nothing that the rows would not: same verdict, same canonical row, on any rows at all."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sluice.rows.columns import vouch
from sluice.rows.formats.json import line_frames
from sluice.rows.frames import of_table
from sluice.rows.schemas import SCHEMAS
from sluice.rows.violations import RefusedError
from tests.seed import SEED

text = st.one_of(st.text(max_size=6), st.sampled_from(["", " ", "\u3000", "a", "诊断", "\x1c", "\u0085", "2024-01-01"]))
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), text, st.lists(text, max_size=2)
)
maybe = st.one_of(text, text, text, odd)


listed_text = st.one_of(st.lists(st.sampled_from(["a", "B-A", "I-A", "O", " "]), max_size=3), odd)
roles = st.one_of(st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool"]), maybe)
message = st.one_of(
    st.fixed_dictionaries({"role": roles, "content": maybe}, optional={"name": odd, "tool_calls": odd}), odd
)
turn = st.one_of(st.fixed_dictionaries({"from": roles, "value": maybe}, optional={"weight": odd}), odd)
paths = st.sampled_from(["a.png", "b/c.png", "", " "])
pictured = {
    name: st.one_of(st.lists(paths, max_size=3), paths, odd, st.lists(odd, max_size=2))
    for name in ("images", "image", "image_path", "video", "frames", "audios")
}
marked = st.one_of(maybe, st.sampled_from(["<image>", "<image>a<image>", "a <image> b", "<video>"]))
marks = st.sampled_from(["<image>", "<image>a<image>", "a"])
about = {"id": odd, "group": odd, "tags": st.one_of(odd, st.lists(maybe, max_size=2)), "system": maybe, "extra": odd}
span = st.fixed_dictionaries({"start": st.integers(-1, 4), "end": st.integers(-1, 6), "label": text})
named = st.one_of(
    st.fixed_dictionaries({"text": text, "entities": st.lists(span, max_size=3)}, optional=about),
    st.fixed_dictionaries(
        {"text": st.sampled_from(["a b c", "诊断 𝒳 b", " ab c "])},
        optional={
            "entities": st.lists(
                st.fixed_dictionaries(
                    {"start": st.integers(0, 4), "end": st.integers(1, 5), "label": st.sampled_from(["A", "B", " "])},
                    optional={"text": maybe},
                ),
                max_size=3,
            ),
            "spans": st.one_of(st.lists(span, max_size=1), odd),
            "tokens": listed_text,
            "ner_tags": listed_text,
        },
    ),
    st.fixed_dictionaries(
        {"tokens": listed_text, "ner_tags": listed_text}, optional={**about, "tags": listed_text, "text": maybe}
    ),
)
row = st.one_of(
    st.fixed_dictionaries({"messages": st.one_of(st.lists(message, max_size=3), odd)}, optional=about),
    st.fixed_dictionaries({"conversations": st.one_of(st.lists(turn, max_size=3), odd)}, optional=about),
    st.fixed_dictionaries(
        {}, optional={**about, "instruction": maybe, "input": maybe, "output": maybe, "query": maybe, "response": maybe}
    ),
    st.fixed_dictionaries(
        {"query": maybe, "response": maybe},
        optional={**about, "history": st.one_of(odd, st.lists(st.lists(maybe, max_size=3), max_size=2))},
    ),
    st.fixed_dictionaries({"prompt": maybe, "completion": maybe}, optional={**about, "text": maybe}),
    st.fixed_dictionaries({"text": maybe}, optional=about),
)
listed = st.one_of(maybe, maybe, st.lists(maybe, max_size=2))
shown = st.one_of(
    st.fixed_dictionaries({"question": marked, "output": marked}, optional={**about, **pictured, "bbox": odd}),
    st.fixed_dictionaries({"prompt": marked, "completion": marked}, optional={**about, **pictured, "question": maybe}),
    st.fixed_dictionaries({"prompt": marked, "chosen": maybe, "rejected": maybe}, optional=pictured),
    st.fixed_dictionaries({"text": marked, "label": maybe}, optional={**pictured, "caption": maybe}),
    st.fixed_dictionaries({"query": marked, "positive": maybe}, optional=pictured),
    st.fixed_dictionaries({"text": marks, "label": text, "images": st.lists(st.just("a"), max_size=2)}),
    st.fixed_dictionaries({"query": marks, "positive": text, "images": st.lists(st.just("a"), max_size=2)}),
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": marked}),
                min_size=1,
                max_size=3,
            ),
            "images": st.lists(paths, max_size=3),
        },
        optional={**about, "image": odd},
    ),
)
judged = st.one_of(
    st.fixed_dictionaries(
        {"chosen": maybe, "rejected": maybe},
        optional={**about, "prompt": maybe, "instruction": maybe, "input": maybe, "messages": odd, "history": odd},
    ),
    st.fixed_dictionaries(
        {"completion": maybe, "label": st.one_of(st.booleans(), odd)},
        optional={**about, "prompt": maybe, "query": maybe},
    ),
    st.fixed_dictionaries(
        {"query": maybe, "positive": listed},
        optional={**about, "negatives": listed, "negative": listed, "response": maybe, "anchor": maybe},
    ),
    st.fixed_dictionaries({"text": maybe, "label": listed}, optional={**about, "labels": listed, "sentence": maybe}),
)


def alone(raw: bytes, row_schema: str) -> dict[str, Any] | None:
    try:
        canonical: dict[str, Any] = json.loads(SCHEMAS[row_schema](raw))
    except RefusedError:
        return None
    return canonical


def check(table: pa.Table, raw: list[bytes], row_schema: str) -> np.ndarray:
    vouched = vouch(table, row_schema)
    seen = [{name: value for name, value in each.items() if value is not None} for each in vouched.rows.to_pylist()]
    expected = [alone(raw[index], row_schema) for index in np.flatnonzero(vouched.mask)]
    assert seen == expected
    return vouched.mask


some_rows = st.one_of(*(st.lists(kind, min_size=1, max_size=4) for kind in (row, judged, shown, named)))


def check_json(row_schema: str, rows: list[Any]) -> None:
    raw = [json.dumps(each).encode() for each in rows]
    for cut in line_frames(iter([b"\n".join([*raw, b""])])):
        frame = cut()
        if frame.columns is not None:
            check(frame.columns, raw, row_schema)


@pytest.mark.parametrize("row_schema", sorted(SCHEMAS))
@settings(max_examples=100)
@given(rows=some_rows)
def test_json_rows_are_vouched_for_only_where_they_are_right(row_schema: str, rows: list[Any]) -> None:
    check_json(row_schema, rows)


@pytest.mark.prove
@pytest.mark.parametrize("row_schema", sorted(SCHEMAS))
@seed(SEED)
@settings(max_examples=1500, derandomize=False)
@given(rows=some_rows)
def test_any_json_rows_are_vouched_for_only_where_they_are_right(row_schema: str, rows: list[Any]) -> None:
    check_json(row_schema, rows)


KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): text,
    pa.large_string(): text,
    pa.dictionary(pa.int32(), pa.string()): text,
    pa.binary(): st.one_of(text.map(str.encode), st.just(b"\xff")),
    pa.int64(): st.integers(-5, 5),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False, width=16),
    pa.bool_(): st.booleans(),
    pa.timestamp("ns"): st.just(0),
    pa.decimal128(5, 2): st.just(1),
    pa.list_(pa.string()): st.lists(text, max_size=2),
}
FIELDS = """
prompt completion instruction input output query response question answer system text label chosen rejected id tags
image images video
"""


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 4))
    columns = {}
    for name in draw(st.lists(st.sampled_from(FIELDS.split()), min_size=1, max_size=5, unique=True)):
        kind = draw(st.one_of(st.just(pa.string()), st.sampled_from(list(KINDS))))
        values = draw(st.lists(st.one_of(KINDS[kind], KINDS[kind], st.none()), min_size=rows, max_size=rows))
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


def check_table(table: pa.Table, row_schema: str) -> None:
    frame = of_table(table, 1)
    assert len(frame) == len(table)
    if frame.columns is not None:
        check(frame.columns, [frame.row(index) for index in range(len(frame))], row_schema)


@settings(max_examples=150)
@given(table=tables(), row_schema=st.sampled_from(sorted(SCHEMAS)))
def test_table_rows_are_vouched_for_only_where_they_are_right(table: pa.Table, row_schema: str) -> None:
    check_table(table, row_schema)


@pytest.mark.prove
@seed(SEED)
@settings(max_examples=2000, derandomize=False)
@given(table=tables(), row_schema=st.sampled_from(sorted(SCHEMAS)))
def test_any_table_rows_are_vouched_for_only_where_they_are_right(table: pa.Table, row_schema: str) -> None:
    check_table(table, row_schema)
