"""Recognizers over columns of text: what is found, what is not, and what is left of it."""

import datetime
import logging
import re
import subprocess
import sys
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.rpc.errors import Invalid
from sluice.rows.deidentify import Findings, Recognizer, look, recognizers
from sluice.rows.deidentify.checksums import credit_check, id_check, luhn, organization_check
from sluice.rows.deidentify.text import find, fold

BOTH = recognizers()
CHINESE = st.text(alphabet="患者于本院就诊行检查，未见异常。左肺上叶结节", max_size=8)
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})


def kinds(text: str) -> list[str]:
    """The kinds found in one text, in order."""
    return [span.kind for span in find(pl.Series([text]), BOTH).get(0, [])]


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find(pl.Series([text]), BOTH).get(0, [])]


@st.composite
def resident_ids(draw: st.DrawFn) -> str:
    division = draw(st.sampled_from(["110101", "310104", "440305", "510107", "650102", "810000", "932682"]))
    born = draw(st.dates(datetime.date(1900, 1, 1), datetime.date(2030, 12, 31)))
    body = f"{division}{born:%Y%m%d}{draw(st.integers(0, 999)):03d}"
    return body + id_check(body)


@st.composite
def bank_cards(draw: st.DrawFn) -> str:
    prefix, length = draw(st.sampled_from([("622202", 19), ("621700", 16), ("4111", 16), ("5555", 16), ("3782", 15)]))
    body = prefix + "".join(draw(st.lists(st.sampled_from("0123456789"), min_size=19, max_size=19)))
    body = body[: length - 1]
    return next(body + digit for digit in "0123456789" if luhn(body + digit))


@st.composite
def credit_codes(draw: st.DrawFn) -> str:
    organization = "".join(draw(st.lists(st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY"), min_size=8, max_size=8)))
    body = draw(st.sampled_from(["91", "12", "52", "Y1"])) + draw(st.sampled_from(["110000", "440300"]))
    body += organization + organization_check(organization)
    return body + credit_check(body)


NUMBERS = st.one_of(
    st.tuples(st.just("CN_ID_CARD"), resident_ids()),
    st.tuples(st.just("BANK_CARD"), bank_cards()),
    st.tuples(st.just("CN_SOCIAL_CREDIT_CODE"), credit_codes()),
)


@given(NUMBERS, CHINESE, CHINESE, st.booleans())
def test_a_valid_number_is_found_between_chinese_words_and_in_full_width(
    number: tuple[str, str], before: str, after: str, wide: bool
) -> None:
    kind, digits = number
    digits = digits.translate(FULL_WIDTH) if wide else digits
    assert (kind, digits) in found(f"{before}{digits}{after}")


@given(NUMBERS, st.data())
def test_a_number_with_one_digit_changed_is_not_found_as_what_it_was(number: tuple[str, str], data: Any) -> None:
    kind, digits = number
    place = data.draw(st.sampled_from([at for at, digit in enumerate(digits) if digit.isdigit()]))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != digits[place]]))
    assert kind not in kinds(f"号{digits[:place]}{other}{digits[place + 1 :]}。")


FOUND: list[tuple[str, list[tuple[str, str]]]] = [
    ("证 11010519491231002X。", [("CN_ID_CARD", "11010519491231002X")]),  # the example of GB 11643-1999
    ("证 110105 19491231 002x", [("CN_ID_CARD", "110105 19491231 002x")]),
    ("身份证号：440524880101001", [("CN_ID_CARD", "440524880101001")]),
    ("440524880101001", []),  # the first generation has no check digit, so it needs its cue
    ("证 110105194912310021", []),
    ("证 11010519491331002X", []),  # no 13th month, whatever the check digit
    ("代码91350100M000100Y43", [("CN_SOCIAL_CREDIT_CODE", "91350100M000100Y43")]),  # the example of GB 32100-2015
    ("卡 6222 0212 3456 7890 128", [("BANK_CARD", "6222 0212 3456 7890 128")]),
    ("卡 6222 0212 3456 7890 129", []),
    ("卡 4111 1111 1111 1111 ok", [("BANK_CARD", "4111 1111 1111 1111")]),
    ("卡4111-1111-1111-1111", [("BANK_CARD", "4111-1111-1111-1111")]),
    ("card 3782 822463 10005", [("BANK_CARD", "3782 822463 10005")]),
    ("银行卡 6304 0000 0000", [("BANK_CARD", "6304 0000 0000")]),
    ("6304 0000 0000", []),  # 12 digits are taken for a card only after a cue
    ("请拨13812345678联系", [("CN_MOBILE", "13812345678")]),
    ("电话：138-1234-5678", [("CN_MOBILE", "138-1234-5678")]),
    ("电话：+86 138 1234 5678。", [("CN_MOBILE", "138 1234 5678")]),
    ("电话：8613812345678。", [("CN_MOBILE", "13812345678")]),
    ("电话：86-13812345678。", [("CN_MOBILE", "13812345678")]),
    ("电话：+86-13812345678。", [("CN_MOBILE", "13812345678")]),
    ("电话：+86-138-1234-5678。", [("CN_MOBILE", "138-1234-5678")]),
    ("电话：0086-13812345678。", [("CN_MOBILE", "13812345678")]),
    ("电话：86.138.1234.5678。", [("CN_MOBILE", "138.1234.5678")]),
    ("电话：138.1234.5678。", [("CN_MOBILE", "138.1234.5678")]),
    ("电话：138．1234．5678", [("CN_MOBILE", "138．1234．5678")]),
    ("姓\u00ad名：张三，138\u00ad1234\u00ad5678", [("PERSON_NAME", "张三"), ("CN_MOBILE", "138\u00ad1234\u00ad5678")]),
    ("1\u00ad3812345\u00ad678\u00ad", [("CN_MOBILE", "1\u00ad3812345\u00ad678")]),
    ("电话：+86 10 6234 5678。", [("PHONE", "+86 10 6234 5678")]),
    ("ＭＲＮ：００１２３４５６", [("CASE_NUMBER", "００１２３４５６")]),
    ("Tel13812345678", [("CN_MOBILE", "13812345678")]),
    ("总机010-62345678转", [("CN_PHONE", "010-62345678")]),
    ("（0755）26712345", [("CN_PHONE", "（0755）26712345")]),
    ("call +1 650-253-0000 now", [("PHONE", "+1 650-253-0000")]),
    ("call +1 111-111-1111 now", []),
    ("写信到zhang.san@example.com.cn。", [("EMAIL", "zhang.san@example.com.cn")]),
    ("ＺＨＡＮＧ＠ＥＸＡＭＰＬＥ．ＣＯＭ", [("EMAIL", "ＺＨＡＮＧ＠ＥＸＡＭＰＬＥ．ＣＯＭ")]),
    ("从192.168.1.20登录", [("IP_ADDRESS", "192.168.1.20")]),
    ("from 2001:db8::8a2e:370:7334 on", [("IP_ADDRESS", "2001:db8::8a2e:370:7334")]),
    ("姓名：张三，男，45岁", [("PERSON_NAME", "张三")]),
    ("姓名：张三性别：男", [("PERSON_NAME", "张三")]),
    ("姓 名 欧阳小明 性别 女", [("PERSON_NAME", "欧阳小明")]),
    ("姓名：买买提·艾力，", [("PERSON_NAME", "买买提·艾力")]),
    ("患者李小华，女，咳嗽三天", [("PERSON_NAME", "李小华")]),
    ("家属：王五", [("PERSON_NAME", "王五")]),
    ("报告医师：赵敏  审核医师：钱文", [("PERSON_NAME", "赵敏"), ("PERSON_NAME", "钱文")]),
    ("病人MRN:00123456", [("CASE_NUMBER", "00123456")]),
    ("Patient: Smith, J. was seen", [("PERSON_NAME", "Smith, J.")]),
    ("Patient: John Smith, 45", [("PERSON_NAME", "John Smith")]),
    ("Patient name: SMITH^JOHN", [("PERSON_NAME", "SMITH^JOHN")]),
    ("出生日期：1985年3月2日", [("DATE_OF_BIRTH", "1985年3月2日")]),
    ("DOB: 03/02/1985", [("DATE_OF_BIRTH", "03/02/1985")]),
    ("1985-03-02出生于", [("DATE_OF_BIRTH", "1985-03-02")]),
    ("护照号：E12345678", [("PASSPORT", "E12345678")]),
    ("passport no. 123456789", [("PASSPORT", "123456789")]),
    ("住院号：ZY20230001", [("CASE_NUMBER", "ZY20230001")]),
    ("MRN 00123456", [("CASE_NUMBER", "00123456")]),
    ("Medical record number: 884213", [("CASE_NUMBER", "884213")]),
    ("医保卡号：A01234567", [("MEDICAL_INSURANCE_NUMBER", "A01234567")]),
    ("社会保障号码 11010519491231002X", [("MEDICAL_INSURANCE_NUMBER", "11010519491231002X")]),
    ("社会保障号码 110105194912310021", []),
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_what_is_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "血压 120/80 mmHg，心率 72 次/分，体温 36.5℃",
        "2024-01-15 10:23:45",
        "2024-01-15T10:23:45.123456Z",
        "20240115102345",
        "1705314225 和 1705314225123",
        "ISBN 978-7-302-51234-6",
        "ISBN 7-302-02368-9",
        "6901234567892",  # a Chinese barcode
        "4006381333931",  # a German one
        "1.2.840.10008.5.1.4.1.1.7",
        "pi = 3.14159265358979323846",
        "订单 1286-13812345678 与 A86-13812345678 与 86-138123456789",
        "编号 7-86-13812345678 与 3.86.13812345678",
        "138.1234.567 138.12345.678 138.1234.56789 138.1234.5678.9 1.138.1234.5678 138.1234-5678",
        "128.1234.5678 86-12812345678 087-13812345678",
        "13\u00ad8\u00ad1234",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "3b241101-e2bb-4255-8caf-4136c566a962",
        "version 1.2.3.4",
        "brotli>=1.2.0.0 on 127.0.0.1",
        "x[..., 0::2] and a:b::c:d",
        "std::vector<int>::size 12:34:56",
        "患者高热，咳嗽；患者黄疸，伴腹痛。姓名不能为空，性别必填",
        "姓名：性别：年龄：",
        "患者老年男性，因胸闷入院",
        "医生：您好，哪里不舒服？\n患者：高血压。\n医生：多久了？\n患者：谢谢，常年。",
        "Doctor: Good morning. Patient: Yes, I have. Patient: Thank You. Patient: Well, Doctor",
        "١٣٨١٢٣٤٥٦٧٨ ٩١٣٥٠١٠٠M٠٠٠١٠٠Y٤٣",  # digits of other scripts: no number here is written in them
        "医保2023年报销比例 20230101 起执行",
        "In this case 2023-01 was chosen; the chart 12345 shows",
        "100000000000 200000000000 300000000000",
        "订单 10000000000000001",
        "a@b",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
    ],
)
def test_what_is_no_finding(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("recognizer", BOTH, ids=["cued", "numbers"])
def test_hints_are_wider_than_what_they_stand_for(recognizer: Recognizer) -> None:
    """Whatever a search finds its hint lets through, also with full-width signs and odd spaces and hyphens."""
    texts = [text for text, _ in FOUND]
    odd = {":": "：", " ": "\u3000", "-": "\u2011", "+": "＋", "@": "＠", "(": "（", ")": "）", ",": "，"}
    for text in [*texts, *(text.translate(str.maketrans(odd)) for text in texts)]:
        for number, hint in enumerate(recognizer.hints()):
            if recognizer.find(fold(text), number):
                assert (
                    pl.Series([re.sub("[０-９Ａ-Ｚａ-ｚ]", lambda wide: fold(wide[0]), text)]).str.contains(hint).item()
                )


@given(st.integers(0, 10**10 - 1))
def test_short_plain_numbers_are_no_finding(number: int) -> None:
    assert kinds(f"共{number}例") == []


@given(st.text())
def test_folding_keeps_every_place(text: str) -> None:
    assert len(fold(text)) == len(text)


@settings(max_examples=200)
@given(st.lists(st.one_of(st.text(max_size=40), resident_ids(), st.just("姓名：张三，13812345678")), max_size=6))
def test_any_text_gives_ordered_disjoint_spans_inside_it(texts: list[str]) -> None:
    joined = ["；".join(texts), *texts]
    for place, spans in find(pl.Series(joined, dtype=pl.String), BOTH).items():
        ends = [0, *(span.end for span in spans)]
        assert all(end <= span.start < span.end for end, span in zip(ends, spans, strict=False))
        assert ends[-1] <= len(joined[place])


def test_nulls_and_empty_columns_are_no_finding() -> None:
    assert find(pl.Series([None, "13812345678", None], dtype=pl.String), BOTH).keys() == {1}
    assert find(pl.Series([], dtype=pl.String), BOTH) == {}
    assert find(pl.Series(["13812345678"]), []) == {}


TABLE = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "messages": [
            [
                {"role": "user", "content": "姓名：张三，电话13812345678"},
                {"role": "assistant", "content": "已记下 １３８１２３４５６７８ 和 139-1234-5678"},
            ],
            None,
            [{"role": "user", "content": "今天天气如何"}, {"role": "assistant", "content": None}],
            [],
        ],
        "images": [["x.png"], [], None, ["13912345678.png"]],
        "pair": [
            {"chosen": "a", "rejected": {"text": "b"}},
            None,
            {"chosen": None, "rejected": {"text": "z@x.cn"}},
            None,
        ],
        "count": [13812345678, 2, 3, None],
    },
    schema_overrides={"images": pl.List(pl.String)},
)


def test_mask_reaches_nested_texts_and_changes_nothing_else() -> None:
    masked, findings = look(TABLE, BOTH, mask=True)
    assert masked.schema == TABLE.schema
    assert masked["messages"].to_list()[0] == [
        {"role": "user", "content": "姓名：<PERSON_NAME>，电话<CN_MOBILE>"},
        {"role": "assistant", "content": "已记下 <CN_MOBILE> 和 <CN_MOBILE_2>"},
    ]
    assert masked["messages"].to_list()[1:] == TABLE["messages"].to_list()[1:]
    assert masked["images"].to_list() == [["x.png"], [], None, ["<CN_MOBILE>.png"]]
    assert masked["pair"].to_list()[2] == {"chosen": None, "rejected": {"text": "<EMAIL>"}}
    assert masked["pair"].is_null().to_list() == TABLE["pair"].is_null().to_list()
    assert masked.select("id", "count").equals(TABLE.select("id", "count"))
    assert findings.counts == {
        ("CN_MOBILE", "messages[].content"): 3,
        ("PERSON_NAME", "messages[].content"): 1,
        ("CN_MOBILE", "images[]"): 1,
        ("EMAIL", "pair.rejected.text"): 1,
    }
    assert findings.rows == {
        0: {"messages[].content": {"PERSON_NAME", "CN_MOBILE"}},
        2: {"pair.rejected.text": {"EMAIL"}},
        3: {"images[]": {"CN_MOBILE"}},
    }


def test_mask_of_slices_and_fixed_size_lists() -> None:
    fixed = pl.Array(pl.String, 2)
    table = pl.DataFrame(
        {
            "two": pl.Series([["a", "13812345678"], None, ["13912345678", "b"]], dtype=fixed),
            "many": pl.Series([["a"], None, ["13912345678", "b"]]),
            "deep": pl.Series([[["a", "b"]], [["c", "d"], ["e", "f"]], [["13912345678", "g"]]], dtype=pl.List(fixed)),
        }
    )
    masked, findings = look(table.slice(1), BOTH, mask=True)
    assert masked.to_dict(as_series=False) == {
        "two": [None, ["<CN_MOBILE>", "b"]],
        "many": [None, ["<CN_MOBILE>", "b"]],
        "deep": [[["c", "d"], ["e", "f"]], [["<CN_MOBILE>", "g"]]],
    }
    assert masked.schema == table.schema and findings.rows.keys() == {1}


def test_what_is_masked_is_no_finding_any_more() -> None:
    masked, _ = look(TABLE, BOTH, mask=True)
    again, findings = look(masked, BOTH, mask=True)
    assert again is masked and not findings


def test_looking_changes_nothing_and_columns_are_chosen() -> None:
    same, findings = look(TABLE, BOTH, columns=["images"])
    assert same is TABLE and findings.counts == {("CN_MOBILE", "images[]"): 1} and findings.rows.keys() == {3}
    assert not Findings() and not look(TABLE.slice(1, 1), BOTH)[1]


def test_what_was_found_is_in_no_finding_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = repr(look(TABLE, BOTH, mask=True)[1]) + caplog.text
    assert "EMAIL" in said and not any(secret in said for secret in ("张三", "1381234", "１３８", "z@x"))


def test_an_unknown_recognizer_is_named() -> None:
    with pytest.raises(Invalid, match="`regex` is not known; it is one of `cued`, `numbers`, `presidio`"):
        recognizers(["regex"])


def test_import_is_cheap() -> None:
    heavy = "polars pyarrow presidio_analyzer spacy phonenumbers tldextract numpy sqlglot tokenizers"
    code = "import sys, sluice.rows.deidentify, sluice.rows.demands; "
    code += f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
