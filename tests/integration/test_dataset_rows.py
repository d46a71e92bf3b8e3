"""Rows in and out of a running suite by the SDK: formats, appending, and reading as columns."""

import csv
import io
import json
import multiprocessing

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from kit.rpc.errors import Invalid
from sluice import Client
from sluice.client import RowsRefused

ROWS = [{"prompt": f'问题 {number}, "quoted"\nline', "completion": f"answer {number}"} for number in range(60)]


@pytest.fixture
def client(running, project):
    with Client(running.address("dataset"), running.key, project) as client:
        yield client


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def as_parquet(rows):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_arrow(rows):
    sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_excel(rows):
    sink = io.BytesIO()
    pl.DataFrame(rows).write_excel(sink)
    return sink.getvalue()


FORMATS = {
    "rows.jsonl": as_jsonl,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": as_csv,
    "rows.tsv": lambda rows: as_csv(rows, "\t"),
    "rows.parquet": as_parquet,
    "rows.arrow": as_arrow,
    "rows.xlsx": as_excel,
}


def test_every_format_brings_the_same_rows(client, tmp_path):
    found = set()
    for name, write in FORMATS.items():
        (tmp_path / name).write_bytes(write(ROWS))
        version = client.datasets.upload(name=name.replace(".", "-"), path=tmp_path / name, task_type="sft")
        assert version.row_count == len(ROWS)
        table = client.datasets.open(version.name, columns=["messages", "key", "split"]).arrow()
        found.add(json.dumps(table.drop_columns(["key"]).to_pylist()))
    assert len(found) == 1


def test_a_file_that_is_appended_adds_its_rows_to_those_there(client, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(ROWS[:40]))
    (tmp_path / "b.csv").write_bytes(as_csv(ROWS[40:]))
    first = client.datasets.upload(name="d", path=tmp_path / "a.jsonl", task_type="sft")
    second = client.datasets.upload(name="d", path=tmp_path / "b.csv", append=True)
    assert (second.row_count, second.rows_added, second.base_version) == (60, 20, first.name)
    asked = [row["messages"][0]["content"] for row in client.datasets.read("d")]
    assert asked == [row["prompt"] for row in ROWS]
    assert client.datasets.open(first.name).row_count == 40


def test_a_bad_cell_is_named_by_its_row(client, tmp_path):
    rows = [*ROWS[:4], {"prompt": "q", "completion": " "}]
    (tmp_path / "a.csv").write_bytes(as_csv(rows))
    with pytest.raises(RowsRefused) as refused:
        client.datasets.upload(name="bad", path=tmp_path / "a.csv", task_type="sft")
    violation = refused.value.upload.violations[0]
    assert (violation.row, violation.field, violation.kind) == (5, "completion", "empty-text")


def test_wrong_rows_are_put_aside_and_can_be_had(client, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([*ROWS[:3], {"prompt": "q"}, {"prompt": "q", "completoin": "a"}]))
    given = {"name": "q", "path": tmp_path / "a.jsonl", "task_type": "sft"}
    version = client.datasets.upload(**given, fix=True, quarantine=True)
    assert version.row_count == 4
    made_of = client.datasets.upload_of(version.name)
    assert (made_of.quarantined_rows, dict(made_of.fixed_counts)) == (1, {"missing-field": 1})
    (aside,) = [json.loads(line) for line in b"".join(client.datasets.quarantine(version.name)).splitlines()]
    assert (aside["row"], aside["field"], json.loads(aside["content"])) == (4, "completion", {"prompt": "q"})
    with pytest.raises(RowsRefused):
        client.datasets.upload(**given)


@pytest.fixture
def opened(client, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(ROWS))
    version = client.datasets.upload(name="o", path=tmp_path / "a.jsonl", task_type="sft")
    return client.datasets.open(version.name, split="train")


def test_rows_come_as_what_people_work_with(client, opened):
    table = opened.arrow()
    assert len(table) == len(opened) and table.column_names == ["messages", "id", "group", "tags"]
    assert opened.polars().equals(pl.from_arrow(table))
    assert opened.dataset()[0]["messages"] == table.column("messages")[0].as_py()
    assert sum(len(batch) for batch in opened.batches(start=3, most=5)) == 5
    with pytest.raises(Invalid, match="no column `text`"):
        client.datasets.open(opened.name, columns=["text"]).arrow()


def test_the_workers_of_a_loader_read_every_row_once(opened):
    rows = opened.torch(10)
    shares = [rows.shard(num_shards=2, index=index) for index in range(2)]
    found = sorted(json.dumps(row["messages"]) for share in shares for row in share)
    assert found == sorted(json.dumps(row) for row in opened.arrow().column("messages").to_pylist())


def rows_of(reopen):
    return len(reopen().arrow())


def test_a_version_is_opened_again_in_another_process(opened):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(rows_of, [opened.reopen]) == len(opened)
