"""`sluice dataset catalogue` and `register` over a scripted suite: what is shown, sent, refused and left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pytest
import zstandard
from catalogue_files import write_files
from catalogue_samples import SAMPLES
from scripted_suite import Script

from kit.rpc.errors import Invalid, NotFound
from sluice import Client
from sluice.catalogue import entries
from sluice.cli import run
from sluice.dataset import v1 as dataset

MMLU = [{"question": f"Which of {n}?", "subject": "s", "choices": ["a", "b"], "answer": n % 2} for n in range(5)]


@pytest.fixture(autouse=True)
def suite(address, monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    write_files(
        tmp_path / "copy", {"all/test-00000-of-00001.parquet": MMLU, "all/dev-00000-of-00001.parquet": MMLU[:1]}
    )
    return tmp_path / "copy"


def sent(script: Script) -> list[dict[str, object]]:
    [content] = script.received.values()
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(bytes(content)).splitlines()
    return [json.loads(line) for line in lines]


def test_a_copy_becomes_a_version_with_tags(script: Script, copy: Path, tmp_path: Path, capsys):
    assert run(["dataset", "register", "mmlu", "--from", str(copy)]) == 0
    captured = capsys.readouterr()
    assert "projects/default/datasets/mmlu-test/versions/1" in captured.out
    assert "this was the split `test`; there are also auxiliary_train, validation, dev" in captured.err
    made = script.datasets["projects/default/datasets/mmlu-test"]
    assert (made.task_type, list(made.modalities)) == ("sft", ["text"]) and "57 subjects" in made.description
    assert dict(made.tags) == {"catalogue": "mmlu", "language": "en", "licence": "MIT"}
    [upload] = script.uploads.values()
    assert upload.file_name == "mmlu.jsonl.zst"
    rows = sent(script)
    assert len(rows) == 5
    assert rows[1] == {
        "messages": [{"role": "user", "content": "Which of 1?\nA. a\nB. b"}, {"role": "assistant", "content": "B"}]
    }
    assert list((tmp_path / "temporary").iterdir()) == []


def test_python_registers_a_copy_as_the_command_does(script: Script, client: Client, copy: Path, tmp_path: Path):
    assert client.catalogue.find("mmlu") in client.catalogue.search("subjects", task_type="sft")
    mapped: list[int] = []
    made = client.catalogue.register("mmlu", copy, limit=3, mapped=mapped.append)
    assert made.version.name == "projects/default/datasets/mmlu-test/versions/1"
    assert (made.split, made.rows_left_out, len(sent(script)), mapped[-1]) == ("test", 0, 3, 3)
    known = script.datasets["projects/default/datasets/mmlu-test"]
    assert known.task_type == "sft" and known.tags["licence"] == "MIT"
    known.description = "ours"
    client.catalogue.register("mmlu", copy, split="dev", name="mmlu-test")
    assert known.description == "ours", "what people have said stays"
    with pytest.raises(Invalid, match="there is no folder"):
        client.catalogue.register("mmlu", tmp_path / "nowhere")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_split_name_and_limit_are_taken(script: Script, copy: Path, capsys):
    arguments = [
        "dataset",
        "register",
        "mmlu",
        "--from",
        str(copy),
        "--split",
        "test",
        "--name",
        "exam",
        "--limit",
        "2",
    ]
    assert run([*arguments, "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == "projects/default/datasets/exam/versions/1"
    assert [row["messages"][0]["content"][:11] for row in sent(script)] == ["Which of 0?", "Which of 1?"]


def test_the_same_copy_again_is_the_same_upload(script: Script, copy: Path):
    for _ in range(2):
        assert run(["dataset", "register", "mmlu", "--from", str(copy), "--quiet"]) == 0
    assert len(script.uploads) == 1


def test_what_people_said_of_the_dataset_stays(script: Script, copy: Path):
    name = "projects/default/datasets/mmlu-test"
    script.datasets[name] = dataset.Dataset(
        name=name, display_name="mmlu-test", task_type="sft", description="ours", tags={"team": "nlp", "licence": "?"}
    )
    assert run(["dataset", "register", "mmlu", "--from", str(copy), "--quiet"]) == 0
    assert dict(script.datasets[name].tags) == {"team": "nlp", "catalogue": "mmlu", "language": "en", "licence": "MIT"}
    assert script.datasets[name].description == "ours"
    assert script.datasets[name].classification == dataset.CLASSIFICATION_UNSPECIFIED


def test_rows_left_out_and_the_licence_are_told(script: Script, tmp_path: Path, capsys):
    write_files(tmp_path / "copy", SAMPLES["mimic-cxr"].files)
    assert run(["dataset", "register", "mimic-cxr", "--from", str(tmp_path / "copy")]) == 0
    made = script.datasets["projects/default/datasets/mimic-cxr"]
    assert made.classification == dataset.CLASSIFICATION_SENSITIVE
    said = capsys.readouterr().err
    assert "1 rows without an answer, or otherwise incomplete, were left out" in said
    assert "licence: PhysioNet Credentialed Health Data License; commercial use: unclear" in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["mmlu", "--from", "none"], 2, "there is no folder `none`"),
        (["mmlu", "--from", "."], 2, "the split `auxiliary_train` of `mmlu` wants `all/auxiliary_train-*.parquet`"),
        (["mmul", "--from", "."], 3, "the catalogue has no `mmul`; perhaps `mmlu`"),
        (["mmlu", "--from", "{copy}", "--split", "val"], 3, "`mmlu` has no split `val`; it has auxiliary_train, test"),
        (
            ["gsm8k", "--from", "{copy}"],
            2,
            "the split `train` of `gsm8k` wants `main/train-*.parquet` or `train.jsonl`",
        ),
    ],
)
def test_what_cannot_be_registered_is_one_sentence(
    arguments, code, sentence, copy, script: Script, capsys, monkeypatch
):
    monkeypatch.chdir(copy.parent / "temporary")
    assert run(["dataset", "register", *(each.format(copy=copy) for each in arguments)]) == code
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and said.startswith("error: ")
    assert not script.datasets


def test_a_task_type_that_the_suite_has_not_is_refused_by_it_before_any_work(script: Script, tmp_path: Path, capsys):
    script.faults["GetTaskType"] = NotFound("task type `taskTypes/vqa` does not exist")
    write_files(tmp_path / "copy", {"data/train-0.parquet": b"not looked into"})
    assert run(["dataset", "register", "path-vqa", "--from", str(tmp_path / "copy")]) == 3
    assert capsys.readouterr().err == "error: task type `taskTypes/vqa` does not exist\n"
    assert not script.datasets and list((tmp_path / "temporary").iterdir()) == []


def test_rows_that_the_suite_refuses_are_shown(script: Script, copy: Path, tmp_path: Path, capsys):
    refused = dataset.Upload()
    refused.violations.add(row=2, field="messages", kind="empty-text", expected="text", found="none", repair="drop it")
    refused.violation_counts["empty-text"] = 1
    script.refusals = [refused]
    assert run(["dataset", "register", "mmlu", "--from", str(copy)]) != 0
    captured = capsys.readouterr()
    assert "messages" in captured.out and "drop it" in captured.err
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_catalogue_is_a_table_or_json_lines(capsys):
    assert run(["dataset", "catalogue", "--language", "zh", "--task-type", "sequence-classification"]) == 0
    captured = capsys.readouterr()
    assert "tnews" in captured.out and "imdb" not in captured.out and f"of {len(entries())}" in captured.err
    assert run(["dataset", "catalogue", "--search", "bank intents", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) | {"id": "banking77", "access": "open", "verified": "sample"} == json.loads(line)
    assert run(["dataset", "catalogue", "--search", "no such words"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["dataset", "catalogue", "--modality", "smell"]) == 2
    assert "no entry has the modality `smell`; there are audio, image, text" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_the_whole_table_fits_the_terminal(width: int):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    command = [sys.executable, "-m", "sluice.cli", "dataset", "catalogue", "--quiet"]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "dumb"}) as shown:
        os.close(theirs)
        lines = b"".join(iter(lambda: read(ours), b"")).decode().splitlines()
    os.close(ours)
    assert shown.returncode == 0
    assert len(lines) < len(entries()) + 25 and max(len(line) for line in lines) <= width
    assert [id for id in entries() if not any(line.startswith(f"{id} ") for line in lines)] == []


def read(terminal: int) -> bytes:
    """What a terminal got; empty once all who write to it have closed it, which Linux tells as EIO."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def test_one_entry_is_shown_in_full(capsys):
    assert run(["dataset", "catalogue", "c-eval"]) == 0
    out = capsys.readouterr().out
    for said in ("CC-BY-NC-SA-4.0", "not allowed", "*/val-*.parquet", "val/*_val.csv", "not with the original's data"):
        assert said in out
