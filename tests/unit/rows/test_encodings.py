"""Text that is not UTF-8: told, and with `fix` turned into it, in every format that is text."""

import csv
import gzip
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.rows.checking import Rules
from sluice.rows.convert import Outcome, convert
from sluice.rows.formats.encodings import Recoding, encoding_of
from sluice.rows.parts import Part
from tests.unit.rows.stored import contents

ROWS = [{"prompt": f"第{place}位患者的诊断", "completion": "双肺纹理清晰，未见异常"} for place in range(40)]
EXPECTED = [f"第{place}位患者的诊断" for place in range(40)]


def as_jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: list[Any], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FILES = {
    "rows.jsonl": as_jsonl(ROWS),
    "rows.json": json.dumps(ROWS, ensure_ascii=False),
    "rows.csv": as_csv(ROWS),
    "rows.tsv": as_csv(ROWS, "\t"),
}


def run(content: bytes, name: str, *, fix: bool = False, quarantine: bool = False) -> tuple[Outcome, list[Any]]:
    parts: list[Part] = []
    outcome = convert(io.BytesIO(content), name, Rules("sft", fix=fix, quarantine=quarantine), parts.append)
    return outcome, [row["messages"][0]["content"] for row in contents(parts)]


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_in_another_encoding_is_told_once_and_repaired(name: str, encoding: str) -> None:
    content = FILES[name].encode(encoding)
    told, none = run(content, name)
    said = "UTF-16" if encoding == "utf-16" else "GB18030"
    assert [(each.row, each.kind, each.found) for each in told.violations] == [(0, "wrong-encoding", f"text in {said}")]
    assert none == [] and "--fix" in told.violations[0].repair
    repaired, rows = run(content, name, fix=True)
    assert rows == EXPECTED and repaired.accepted and repaired.fixed == {"wrong-encoding": 1}
    packed, rows = run(gzip.compress(content), f"{name}.gz", fix=True)
    assert rows == EXPECTED and packed.accepted


@pytest.mark.parametrize("name", FILES)
def test_utf_8_stays_what_it_is(name: str) -> None:
    outcome, rows = run(FILES[name].encode(), name, fix=True)
    assert rows == EXPECTED and not outcome.fixed
    assert run(("\ufeff" + FILES[name]).encode(), name)[1] == EXPECTED


def test_another_encoding_is_found_wherever_it_begins() -> None:
    plain = as_jsonl([{"prompt": "q", "completion": "a" * 500}]) * 10_000
    content = plain.encode() + FILES["rows.jsonl"].encode("gb18030")
    repaired, rows = run(content, "rows.jsonl", fix=True)
    assert len(content) > 5 << 20 and rows[10_000:] == EXPECTED and repaired.fixed == {"wrong-encoding": 1}
    begun = content[: 3 << 20] + FILES["rows.jsonl"].encode("gb18030")
    assert encoding_of(begun) == "GB18030"


def test_single_rows_in_another_encoding_are_repaired_one_by_one() -> None:
    lines = [as_jsonl([row]).encode("gb18030" if place % 7 == 3 else "utf-8") for place, row in enumerate(ROWS)]
    told, _ = run(b"".join(lines), "rows.jsonl")
    assert told.counts == {"wrong-encoding": 6} and told.violations[0].row == 4
    repaired, rows = run(b"".join(lines), "rows.jsonl", fix=True)
    assert rows == EXPECTED and repaired.fixed == {"wrong-encoding": 6}


FOREIGN = ["naïve café, größer, señor", "ÀÉÎÕÜ", "Тогда", "ПРИВЕТ МИР", "привет, мир", "諸位病患的診斷報告書寫"]
FOREIGN += ["こんにちは世界", "カタカナの文章です", "안녕하세요 환자는 발열과 기침을 호소합니다"]


@pytest.mark.parametrize("text", [each * times for each in FOREIGN for times in (1, 20)])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "koi8-r", "big5", "euc-kr", "euc-jp", "shift-jis"])
def test_bytes_of_no_known_encoding_are_left_to_their_rows(text: str, encoding: str) -> None:
    try:
        content = as_jsonl([{"prompt": text, "completion": "a"}]).encode(encoding)
    except UnicodeEncodeError:
        return
    if encoding == "euc-jp" and text in (FOREIGN[5], FOREIGN[5] * 20):
        return  # without any kana it is no Japanese
    outcome, rows = run(content, "rows.jsonl", fix=True)
    assert outcome.counts == {"wrong-encoding": 1} and outcome.violations[0].row == 1 and rows == []
    assert "only GB18030 and UTF-16 are known" in outcome.violations[0].repair


@pytest.mark.parametrize(
    "text",
    [
        "患者发热三天，咳嗽，伴有头痛。既往体健，否认高血压、糖尿病病史。",
        "主诉：反复上腹部疼痛２年，加重１周（夜间明显）",
        "左侧额顶叶见片状低密度影，边界不清，大小约３８×２５ｍｍ，中线结构居中",
    ],
)
def test_running_chinese_is_known_again_from_a_sentence(text: str) -> None:
    assert encoding_of(text.encode("gb18030")) == encoding_of(text.encode("gbk")) == "GB18030"
    assert encoding_of(text.encode()) == ""


def test_a_file_that_breaks_off_in_another_encoding_is_told() -> None:
    outcome, _ = run(FILES["rows.csv"].encode("gb18030") + b"\xff\xff", "rows.csv", fix=True)
    assert outcome.counts == {"wrong-encoding": 1} and not outcome.accepted
    assert outcome.violations[0].found == "text in GB18030, with damaged characters"


@given(st.lists(st.text(max_size=12), max_size=5), st.sampled_from(["utf-8", "gb18030", "utf-16"]), st.integers(1, 5))
def test_text_comes_through_in_pieces_of_any_size(texts: list[str], encoding: str, size: int) -> None:
    text = "头" + "".join(each for each in texts if each.isprintable())
    content = text.encode(encoding, "replace")
    found = encoding_of(content, first=True)
    assert found in ("", "GB18030", "UTF-16")
    pieces = iter([content, *(content[at : at + size] for at in range(0, len(content), size))])
    assert b"".join(Recoding(pieces, fix=True))


@given(st.lists(st.binary(max_size=6), max_size=6), st.booleans())
def test_any_bytes_are_taken_or_told(pieces: list[bytes], fix: bool) -> None:
    outcome, _ = run(b'{"prompt": "q", "completion": "' + b"".join(pieces) + b'"}\n', "rows.jsonl", fix=fix)
    assert outcome.row_count + sum(outcome.counts.values()) >= 1


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_a_parquet_file_of_another_name_is_told_as_one(name: str) -> None:
    (told,) = run(b"PAR1" + bytes(range(256)) * 8 + b"PAR1", name)[0].violations
    assert (told.row, told.kind, told.found, told.repair) == (0, "other-format", "a Parquet file", "name it .parquet")


def test_odd_rows_of_bytes_that_are_no_text_do_not_reach_arrow() -> None:
    """It would print a traceback of them, and say that a quote is not closed."""
    told, rows = run(b"a,b\n1,\xff\x80,3\n1,2\n", "rows.csv")
    assert [(each.row, each.kind) for each in told.violations] == [(0, "wrong-encoding")] and rows == []
