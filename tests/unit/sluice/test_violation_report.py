"""What `sluice dataset validate` says of wrong rows, word for word, in each language."""

from pathlib import Path

import pytest
from scripted_suite import Script

from sluice.cli import run
from sluice.dataset import v1 as dataset

GOLDEN = Path(__file__).parent / "golden"
#: Files with wrong rows, and how they are looked at.
FILES = {
    "conversations.jsonl": ["--deidentify", "refuse", "--set", "group='g' || id"],
    "windows.csv": [],
}
TEXTS = {
    "conversations.jsonl": (GOLDEN / "conversations.jsonl").read_bytes(),
    "windows.csv": "prompt,completion\n患者主诉,诊断意见\n".encode("gb18030"),
}


@pytest.mark.parametrize(("locale", "language"), [("C.UTF-8", "en"), ("zh_CN.UTF-8", "zh")])
@pytest.mark.parametrize("name", FILES)
def test_the_report_is_the_one_that_was_found_good(name, locale, language, tmp_path, monkeypatch, capsys):
    """Write what is printed into the golden file when it is better, and read it as somebody who has to repair rows."""
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LANG", locale)
    file = tmp_path / name
    file.write_bytes(TEXTS[name])
    assert run(["dataset", "validate", str(file), "--task-type", "sft", *FILES[name]]) == 2
    printed = capsys.readouterr()
    golden = GOLDEN / f"{file.stem}.{language}.txt"
    assert f"{printed.out}--- stderr\n{printed.err}" == golden.read_text("utf-8"), f"{golden.name} is another"
    assert "138123" not in printed.out + printed.err  # no content of a row


def test_what_the_suite_refuses_is_told_in_chinese(script: Script, address, tmp_path, monkeypatch, capsys):
    for name, value in {"SLUICE_ADDRESS": address, "SLUICE_API_KEY": "sl_test", "LC_ALL": "zh_CN.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LANGUAGE", raising=False)
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n')
    refusal = dataset.Upload(file_name="rows.jsonl", violation_counts={"duplicate-id": 1})
    found, repair = "the id of row 5 of the version that is appended to", "give it another, or drop one"
    about = {"kind": "duplicate-id", "expected": "an id of its own", "found": found, "repair": repair}
    refusal.violations.add(row=1, field="id", **about)
    script.refusals = [refusal]
    assert run(["dataset", "upload", str(file), "--task-type", "pretrain"]) == 2
    printed = capsys.readouterr()
    assert "不重复的 id" in printed.out and "与所追加版本第 5 行的 id 相同" in printed.out
    assert "error: `rows.jsonl` 被拒绝：有 1 处错误" in printed.err and "1 × id 重复" in printed.err
    script.refusals = [refusal]
    assert run(["dataset", "upload", str(file), "--task-type", "pretrain", "--json"]) == 2
    assert found in capsys.readouterr().out  # programs read English


@pytest.mark.parametrize(
    ("row", "options", "hinted"),
    [
        ('{"prompt": "p", "completion": 1}', [], True),
        ('{"prompt": "p", "completion": ""}', [], False),
        ('{"prompt": "p", "completion": 1, "id": []}', ["--fix"], False),
    ],
)
def test_fix_is_advised_where_it_was_not_given_and_repairs_something(row, options, hinted, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{row}\n")
    assert run(["dataset", "validate", str(file), *options]) == 2
    said = capsys.readouterr().err
    assert ("--fix makes" in said) is hinted and "--on-error=quarantine" in said
