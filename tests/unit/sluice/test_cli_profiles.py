"""Rows and their numbers in a terminal: widths of Chinese, cuts, and that what is shown is what was found."""

import msgspec
import pyarrow as pa
import pytest
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sluice.cli import forgetting, numbers, screen
from sluice.cli.options import Session
from sluice.cli.preview import lines_of, show_row, texts_of
from sluice.client import profiles
from sluice.client.profiles import page
from sluice.dataset import v1 as dataset
from sluice.rows.profile import find_duplicates, statistics

TALK = [{"role": "user", "content": "我的卡丢了"}, {"role": "assistant", "content": "请马上挂失"}]
ROWS = pa.table(
    {
        "text": ["a card was lost", "a card was lost", "诊断意见书", "the branch is closed today"],
        "label": ["card", "card", "report", "branch"],
        "split": ["train", "test", "train", "train"],
    }
)


def described(rows=ROWS):
    return Parse(msgspec.json.encode(statistics([rows], language_sample=4)), dataset.VersionStatistics())


def repeated(rows=ROWS):
    return Parse(msgspec.json.encode(find_duplicates([rows])), dataset.VersionDuplicates())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("患者今日出现咳嗽", ["患者今日", "出现咳嗽"]),
        ("1 患者出现咳嗽", ["1 患者出", "现咳嗽"]),
        ("one\ntwo", ["one", "two"]),
        ("abcdefghijkl", ["abcdefgh", "ijkl"]),
    ],
)
def test_texts_are_broken_where_their_script_allows(text, lines):
    assert [line.rstrip() for line in lines_of(text, 8)] == lines


def test_what_is_cut_says_so():
    assert lines_of("患者今日上午出现咳嗽和发热", 8, 2) == ["患者今日", "上午出 …"]
    assert lines_of("one two", 8, 1) == ["one two"]


@given(st.text(max_size=60), st.integers(4, 20), st.integers(0, 3))
def test_no_line_is_wider_than_the_screen(text, width, most):
    text = screen.plain(text)
    lines = lines_of(text, width, most)
    assert all(cell_len(line) <= width for line in lines)
    assert not most or len(lines) <= most
    if not most:
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_row_of_any_task_is_read_by_role_or_field():
    assert list(texts_of({"messages": TALK, "id": "7", "tags": ["x"]})) == [
        ("user", "我的卡丢了"),
        ("assistant", "请马上挂失"),
    ]
    judged = {"prompt": TALK[:1], "completion": TALK[1:], "label": True}
    assert list(texts_of(judged)) == [
        ("prompt user", "我的卡丢了"),
        ("completion assistant", "请马上挂失"),
        ("label", "true"),
    ]
    assert list(texts_of({"query": "q", "positive": ["p", "p2"], "images": ["sha256:1"]})) == [
        ("query", "q"),
        ("positive", "p"),
        ("positive", "p2"),
        ("images", "sha256:1"),
    ]


def test_a_row_cannot_move_the_cursor(capsys):
    show_row(3, {"text": "\x1b[2Jgone", "group": "p7"})
    assert capsys.readouterr().out == "3  group p7\ntext  [2Jgone\n\n"


def test_statistics_are_told_as_they_are(capsys):
    numbers.show_statistics("d@1", described())
    said = capsys.readouterr().out
    assert "d@1: 4 rows, 71 B of text" in said
    assert "labels: 3 different" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["card", "2", "50.0", "%", "████████"] in lines
    assert ["train", "3", "75.0", "%", "████████████"] in lines


def test_repeated_rows_and_differences_are_told_by_number(capsys):
    numbers.show_duplicates("d@1", repeated())
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "all", "the", "same", "1,", "2"] in said
    assert ["2", "test", "1", "the", "same"] in said
    found = dataset.VersionDifference(kept=1234)
    found.added.rows, found.added.splits["train"] = 4, 4
    found.added.first.extend([7, 8, 9, 10])
    numbers.show_difference("d@1", "d@2", found)
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[1:] == [
        ["only", "in", "d@2", "4", "4", "train", "7,", "8,", "9", "…"],
        ["only", "in", "d@1", "0"],
        ["in", "both", "1", "234"],
    ]


def test_a_page_of_what_the_suite_told():
    made = page("d@1", described(), repeated(), lang="zh_CN.UTF-8")
    assert "诊断意见书" not in made and "report" in made and 'lang="zh-Hans"' in made


async def test_what_is_found_is_read_to_the_end_of_the_stream():
    ended = []

    async def answers():
        yield dataset.ReadVersionStatisticsResponse(statistics=dataset.VersionStatistics())
        ended.append(True)

    assert await profiles._found(answers(), "statistics", profiles.ignore) == dataset.VersionStatistics()
    assert ended, "else the record of reads has one that was broken off"


def test_a_dry_run_is_no_erasure_that_was_done(capsys):
    told = dataset.Erasure(name="projects/p/datasets/d/erasures/e", dry_run=True, rows_removed=3)
    told.state = dataset.ERASURE_STATE_DONE
    assert forgetting._show(Session(), told) == 0
    out = capsys.readouterr().out
    assert "dry run" in out and "DONE" not in out and "erasures/e" not in out and "without" not in out


def test_rows_that_could_not_be_matched_are_told(capsys):
    told = dataset.Erasure(state=dataset.ERASURE_STATE_DONE, column="group", rows_without_column=7)
    assert forgetting._show(Session(), told) == 0
    printed = capsys.readouterr()
    assert "without group" in printed.out
    assert "7 rows have no group at all, so they could not be matched" in " ".join(printed.err.split())
