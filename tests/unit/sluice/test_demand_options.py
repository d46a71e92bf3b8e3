"""Options of the command line about rows beyond their schema: what is sent, what is done here, what is refused."""

import json

import pytest
from scripted_suite import Script

from kit.rpc.errors import Invalid
from sluice.cli import run
from sluice.cli.demands import Deidentify, demands
from sluice.client.demands import message
from sluice.client.uploads import Wishes
from sluice.dataset import v1 as dataset
from sluice.rows.demands import Demands

OPTIONS = ["--deidentify", "mask", "--keep", "length(answer) > 3", "--set", "group='g' || id"]
OPTIONS += ["--tag-rows", "long=length(answer) > 5", "--recognizer", "numbers"]
ROWS = [{"prompt": "电话13812345678", "completion": "long answer", "id": "1"}, {"prompt": "q", "completion": "no"}]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_an_upload_sends_what_is_asked(script: Script, address, monkeypatch, file):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    run(["dataset", "upload", str(file), "--task-type", "sft", *OPTIONS])
    (upload,) = script.uploads.values()
    assert upload.demands == dataset.RowDemands(
        deidentify=dataset.DEIDENTIFY_MASK,
        recognizers=["numbers"],
        keep="length(answer) > 3",
        set={"group": "'g' || id"},
        tags={"long": "length(answer) > 5"},
    )


def test_rows_that_were_put_aside_are_said_to_be_as_they_came(script: Script, address, monkeypatch, file, capsys):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    command = ["dataset", "upload", str(file), "--task-type", "sft", "--deidentify", "mask", "--on-error", "quarantine"]
    run(command)
    ((upload,), (version,)) = script.uploads.values(), script.versions.values()
    version.upload, upload.quarantined_rows = upload.name, 1
    capsys.readouterr()
    run(command)
    assert "they are as they came, with whatever in them identifies people" in capsys.readouterr().err


@pytest.mark.parametrize(("policy", "said"), [("mask", "masked: 1 ×"), ("report", "still in the rows: 1 ×")])
def test_it_is_said_whether_what_identifies_people_is_still_there(policy, said, file, monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", "en")
    assert run(["dataset", "validate", str(file), "--deidentify", policy]) == 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_same_is_done_on_this_machine(file, capsys):
    assert run(["dataset", "validate", str(file), *OPTIONS, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["row_count"], outcome["filtered_rows"]) == (1, 1)
    assert outcome["identified_counts"] == [{"kind": "CN_MOBILE", "field": "messages[].content", "count": 1}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep", "answr = 'x'"], "the expression of `keep` has no column `answr`"),
        (["--set", "label"], "`label` gives nothing a value; write NAME=EXPR"),
        (["--tag-rows", "=1"], "`=1` gives nothing a value"),
        (["--max-tokens", "5"], "a limit of tokens needs both"),
        (["--max-tokens", "5", "--tokenizer", "nowhere"], "there is no `nowhere`; give a tokenizer.json"),
        (["--deidentify", "hide"], "'hide' is not one of"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(options, said, file, capsys):
    assert run(["dataset", "validate", str(file), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_tokenizer_is_taken_out_of_the_folder_of_a_model(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    asked = demands(Deidentify.off, None, "", None, None, 5, tmp_path)
    assert (asked.tokenizer, asked.deidentify) == (b"{}", "")
    assert message(asked).tokenizer.startswith("sha256:44136fa3")


def test_uploads_that_ask_nothing_are_known_by_what_they_were(tmp_path):
    assert str(Wishes()) == "" and not Demands()
    asked = [Demands(keep="true"), Demands(keep="false"), Demands(tags={"a": "true", "b": "true"})]
    assert len({str(Wishes(demands=each)) for each in asked}) == 3
    assert str(Wishes(demands=Demands(tags={"b": "true", "a": "true"}))) == str(Wishes(demands=asked[2]))
    with pytest.raises(Invalid, match="there are off, report, mask and refuse"):
        message(Demands(deidentify="hide"))
