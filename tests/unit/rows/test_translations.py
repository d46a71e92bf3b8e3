"""Violations in Chinese: nothing that can be said of a row is left in English."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sluice.cli.sources
import sluice.cli.violations
from sluice.rows.deidentify.recognizers.cued import RULES as CUED
from sluice.rows.deidentify.recognizers.numbers import RULES as NUMBERS
from sluice.rows.translations import LANGUAGES, _templates, language, said, translated
from tests.unit.rows import clauses

KINDS, CLAUSES = clauses.said()
#: Said alike in all languages.
ALIKE = {"UTF-8", "null", "data:image/png;base64,…", "{} × {}", "{} MiB", "{}: {}", "`{}`: {}"}
CHINESE = re.compile("[一-鿿]")


def test_every_kind_and_clause_has_its_translation() -> None:
    assert len(KINDS) > 30 and len(CLAUSES) > 150  # else the source is not understood any more
    identifying = {rule.kind for rule in (*CUED, *NUMBERS)}
    missing = sorted((KINDS | CLAUSES | identifying) - _templates("zh").keys())
    assert not missing, f"not in sluice/rows/translations/zh.po: {missing}"


def test_nothing_is_translated_that_nobody_says() -> None:
    around = "".join(Path(each.__file__).read_text() for each in (sluice.cli.violations, sluice.cli.sources))
    identifying = {rule.kind for rule in (*CUED, *NUMBERS)} | {"IBAN_CODE", "US_SSN", "URL"}
    where = {"the archive", "the folder of assets"}  # as a Shelf is told, and says inside a clause
    rest = _templates("zh").keys() - KINDS - CLAUSES - identifying - where
    assert not [each for each in rest if f'"{each}"' not in around]


@pytest.mark.parametrize("to", LANGUAGES)
def test_a_translation_has_the_same_data(to: str) -> None:
    for english, other in _templates(to).items():
        places = len(re.findall(r"(?<!\{)\{\}", english))
        marks = [f"<{place}>" for place in range(places)]
        made = other.format(*marks)
        assert english in ALIKE or CHINESE.search(made), english
        assert sorted(re.findall(r"<\d>", made)) == marks or "place" in english, english


@pytest.mark.parametrize(
    ("clause", "chinese"),
    [
        ("a list of 3", "长度为 3 的列表"),
        ("a list of messages", "消息列表"),
        ("`anwser` → `answer`?", "`anwser` 应为 `answer` 吗？"),
        ("no JSON from byte 7 of 30", "共 30 字节，从第 7 字节起不是 JSON"),
        ("an image that came with the file", "随文件提供的一张图像"),
        ("the path of an image in the archive", "归档中一张图像的路径"),
        ("`a.dcm`: one that breaks off in its pixel data", "`a.dcm`：像素数据不完整的 DICOM 文件"),
        ("what looks like CN_MOBILE, PERSON_NAME", "疑似 手机号, 姓名"),
        ("at most 16 MiB of .parquet in an archive", "归档内的 .parquet 不超过 16 MiB"),
        ("something nobody has said before", "something nobody has said before"),
    ],
)
def test_clauses_are_known_again_with_their_data(clause: str, chinese: str) -> None:
    assert translated(clause, "zh") == chinese and translated(clause, "") == clause


@given(st.text())
def test_any_text_is_translated_or_stays(clause: str) -> None:
    assert bool(translated(clause, "zh")) == bool(clause)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ""),
        ({"LANG": "C.UTF-8"}, ""),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, ""),
        ({"LANG": "zha_CN"}, ""),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, ""),
        ({"LANG": "C", "LC_MESSAGES": "zh_CN"}, "zh"),
        ({"LANG": "en_US", "LANGUAGE": "zh_CN:en"}, "zh"),
    ],
)
def test_the_language_is_the_one_that_people_have_set(environment: dict[str, str], found: str) -> None:
    assert language(environment) == found
    assert said("… and {} more", 3, to=found) == ("……另有 3 处" if found else "… and 3 more")
