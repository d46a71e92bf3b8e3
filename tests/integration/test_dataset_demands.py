"""What is asked of rows beyond their schema, through a running suite: by an upload, and by its dataset."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from kit.rpc.errors import Invalid
from sluice import Client
from sluice.client import RowsRefused
from sluice.rows.demands import Demands

CALL = "姓名：张三，电话13812345678"
ROWS = [{"prompt": "q", "completion": f"answer {place}", "id": str(place)} for place in range(20)]


@pytest.fixture
def client(running, project):
    with Client(running.address("dataset"), running.key, project) as client:
        yield client


@pytest.fixture
def upload(client, tmp_path):
    def send(rows, name="d", **wishes):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return client.datasets.upload(name=name, path=file, task_type="sft", **wishes)

    return send


def test_what_a_dataset_asks_is_done_with_every_upload(client, upload):
    upload(ROWS)
    assert client.datasets.update("d", deidentify="mask").deidentify
    version = upload([*ROWS, {"prompt": CALL, "completion": "ok"}])
    said = list(client.datasets.read(version.name))[-1]["messages"][0]["content"]
    assert said == "姓名：<PERSON_NAME>，电话<CN_MOBILE>"
    counted = {(each.kind, each.field): each.count for each in version.identified_counts}
    assert counted == {("CN_MOBILE", "messages[].content"): 1, ("PERSON_NAME", "messages[].content"): 1}
    with pytest.raises(RowsRefused) as refused:  # an upload may ask for more, and not for less
        upload([*ROWS, {"prompt": CALL, "completion": "ok"}], demands=Demands(deidentify="refuse"))
    assert [(each.row, each.kind) for each in refused.value.upload.violations] == [(21, "identifies-person")]
    assert "1381234" not in str(refused.value.upload)
    assert client.datasets.update("d", description="x").deidentify != 0
    assert client.datasets.update("d", deidentify="off").deidentify == 0


def test_rows_that_identify_people_are_put_aside(client, upload):
    rows = [*ROWS, {"prompt": CALL, "completion": "ok"}]
    version = upload(rows, demands=Demands(deidentify="refuse"), quarantine=True)
    aside = [json.loads(line) for line in b"".join(client.datasets.quarantine(version.name)).splitlines()]
    assert version.row_count == 20 and [each["row"] for each in aside] == [21]


def test_rows_are_kept_and_tagged_by_expressions(client, upload):
    demands = Demands(keep="length(answer) > 8", tags={"even": "regexp_like(id, '[02468]$')"}, set={"group": "'g'"})
    version = upload(ROWS, demands=demands)
    rows = list(client.datasets.read(version.name))
    assert [row["id"] for row in rows] == [str(place) for place in range(10, 20)]
    assert [row.get("tags") for row in rows][:2] == [["even"], None] and {row["group"] for row in rows} == {"g"}
    assert client.datasets.upload_of(version.name).filtered_rows == 10
    assert upload(ROWS, demands=demands).name == version.name  # the same file with the same wishes is the same upload
    sent = []
    with pytest.raises(Invalid, match=r"has no column `answr`.*\(at character 8\)"):
        upload([*ROWS, ROWS[0]], demands=Demands(keep="length(answr) > 8"), progress=sent.append)
    assert {each.phase for each in sent} == {"hashing"}


def test_tokens_are_counted_by_the_tokenizer_that_is_sent(client, upload):
    made = Tokenizer(WordLevel({"[UNK]": 0, **{f"filling{place}": place + 1 for place in range(60_000)}}, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    demands = Demands(max_tokens=5, tokenizer=made.to_str().encode())
    assert len(demands.tokenizer) > 1 << 20
    with pytest.raises(RowsRefused) as refused:
        upload([*ROWS, {"prompt": "a b c", "completion": "d e f"}], demands=demands)
    assert [(each.row, each.kind, each.found) for each in refused.value.upload.violations] == [
        (21, "too-many-tokens", "6 tokens")
    ]
    assert upload(ROWS, demands=demands).row_count == 20
    with pytest.raises(RowsRefused, match="expected a tokenizer"):
        upload(ROWS, name="other", demands=Demands(max_tokens=5, tokenizer=b"{}"))


def test_an_id_is_had_by_one_row_of_all_that_are_appended(client, upload):
    upload(ROWS)
    with pytest.raises(RowsRefused) as refused:
        upload([{"prompt": "q", "completion": "new", "id": "7"}], append=True)
    found = "the id of row 8 of the version that is appended to"
    assert [(each.kind, each.found) for each in refused.value.upload.violations] == [("duplicate-id", found)]
    assert upload([{"prompt": "q", "completion": "new", "id": "x"}], append=True).row_count == 21
