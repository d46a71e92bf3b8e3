"""What people are told of rows that are right: as what they were read, what was not used, what few rows lead to."""

import json

import pytest
import xlsxwriter
from scripted_suite import Script

from sluice.cli import rows, run, sources
from sluice.cli.options import Session
from sluice.client import RowsRefused
from sluice.dataset import v1 as dataset

ROWS = [{"instruction": f"q{n}", "input": "", "output": "a", "source": "web", "url": "x"} for n in range(60)]
TOLD = dataset.DatasetVersion(
    task_type="sft",
    columns_read=[
        dataset.ColumnRead(column="messages", names=["instruction", "output"]),
        dataset.ColumnRead(column="id", names=["id"]),
    ],
    names_unused=["source", "url"],
    names_unused_more=3,
    sheets_unread=2,
    split_rows={"train": 8, "validation": 1, "test": 0},
)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def told(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_it_is_said_what_was_read_and_what_was_not(file, capsys):
    assert run(["dataset", "validate", str(file)]) == 0
    said = told(capsys)
    assert "Read as sft: messages ← instruction, input, output. Not used: source, url." in said
    assert "no row is in" not in said and "sheets" not in said
    assert run(["dataset", "validate", str(file), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["columns_read"] == [{"column": "messages", "names": ["instruction", "input", "output"]}]
    assert (outcome["names_unused"], outcome["names_unused_more"]) == (["source", "url"], 0)


def test_it_is_said_of_a_version_when_it_is_made_and_later(script: Script, address, monkeypatch, file, capsys):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    upload = ["dataset", "upload", str(file), "--task-type", "sft"]
    assert run(upload) == 0 and "Read as" not in told(capsys)  # a suite that does not say it
    (version,) = script.versions.values()
    version.MergeFrom(TOLD)
    assert run(upload) == 0
    assert "Read as sft: messages ← instruction, output; id. Not used: source, url, 3 more." in told(capsys)
    assert run(["dataset", "show", "rows@1"]) == 0
    shown = capsys.readouterr().out
    assert "messages ← instruction, output; id" in shown and "source, url, 3 more" in shown
    assert run(["dataset", "show", "rows@1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names_unused"] == ["source", "url"]


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        ("C", ["Read as sft: messages ←", "no row is in `test`;", "sheets not read: 2"]),
        (
            "zh_CN.UTF-8",
            ["按 sft 读取：messages ← instruction, output; id。未使用：", "`test` 中没有数据", "未读取的工作表：2"],
        ),
    ],
)
def test_few_rows_and_other_sheets_are_told_in_the_language_of_people(locale, said, monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", locale)
    sources.show(Session(), TOLD)
    shown = told(capsys)
    assert not [each for each in said if each not in shown]
    sources.show(Session(json=True), TOLD)
    sources.show(Session(), dataset.DatasetVersion(split_rows={"train": 0}))  # all of it was forgotten
    assert told(capsys) == ""


def test_sheets_of_a_workbook_that_were_passed_over_are_counted(tmp_path, capsys):
    path = tmp_path / "rows.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        for answer in ("a", "b", "c"):
            sheet = book.add_worksheet()
            sheet.write_row(0, 0, ["question", "answer"])
            sheet.write_row(1, 0, ["q", answer])
    assert run(["dataset", "validate", str(path), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["row_count"], outcome["sheets_unread"]) == (1, 2)


def test_another_sheet_is_read_where_it_is_named(script: Script, address, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    path = tmp_path / "rows.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        for name, rows in (("Erste", 1), ("第二 2", 3), ("empty", 0)):
            sheet = book.add_worksheet(name)
            for row in range(rows):
                sheet.write_row(row, 0, [["question", "answer"], ["q", "a"], ["r", 7]][row])
    check = ["dataset", "validate", str(path), "--json", "--sheet"]
    assert run([*check, "第二 2"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["row_count"], outcome["sheets_unread"]) == (2, 0)
    assert run(["dataset", "upload", str(path), "--task-type", "sft", "--sheet", "第二 2"]) == 0
    assert [each.file_name for each in script.uploads.values()] == ["rows-第二-2.parquet"]
    assert [each.display_name for each in script.datasets.values()] == ["rows"]
    capsys.readouterr()
    for words, said in (
        ([*check, "third"], "has no sheet `third`; it has `Erste`, `第二 2`, `empty`"),
        (["dataset", "upload", str(path), "--task-type", "sft", "--sheet", "third"], "has no sheet `third`"),
        (["dataset", "validate", __file__, "--sheet", "x"], "has no sheets; name one of an Excel workbook"),
    ):
        assert run(words) == 2 and said in capsys.readouterr().err


def test_of_refused_rows_it_is_said_too_as_what_they_were_read(script: Script, address, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "q", "url": "x"}\n' * 30)
    assert run(["dataset", "validate", str(file)]) == 2
    assert "Not used: url" in told(capsys)
    of = "projects/default/datasets/rows"
    script.datasets[of] = dataset.Dataset(name=of, task_type="sft")
    refused = dataset.Upload(name=f"{of}/uploads/1", columns_read=TOLD.columns_read)
    rows.show_refusal(Session(), RowsRefused(refused))
    assert "Read as sft: messages ← instruction, output; id." in told(capsys)


@pytest.mark.parametrize(("options", "code"), [([], 2), (["--on-error", "quarantine"], 0)])
def test_what_an_upload_would_put_aside_is_counted(options, code, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": 1}\n{"txt": "b"}\n')
    line = ["dataset", "validate", str(file), "--task-type", "pretrain", *options]
    assert run(line) == code
    printed = capsys.readouterr()
    assert "`txt` → `text`?" in printed.out
    assert ("an upload would put aside: 2" in printed.err) == bool(options)
    assert run([*line, "--json"]) == code
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last.get("quarantined_rows") == (2 if options else None)
    file.write_text('{"text": 1}\n')
    assert run(line) == 2, "no row would be left"
