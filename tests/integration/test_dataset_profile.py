"""What is known of the rows of versions, over real gRPC: statistics, repeats, differences, previews, and new rows."""

import json
import random
import uuid

import pytest

from kit.rpc.errors import Denied, Invalid, NotFound
from sluice import Client
from sluice.cli import run
from sluice.types import v1 as types

SECRET = "Mrs Lovelace"


def row(number, mark=""):
    said = random.Random(number)
    asked, answer = (" ".join(said.choices(WORDS, k=12)) for _ in range(2))
    return {"query": f"问题 {number}: {asked}? {mark}", "response": f"{SECRET} says: {answer} {mark}"}


WORDS = ["card", "loan", "branch", "rate", "street", "account", "limit", "fee", "password", "letter", "queue", "app"]
#: 100 rows on their own, 40 of one family, and two of the first 100 again.
ROWS = [row(number) for number in range(100)]
FAMILY = [row(5, mark="the same words over and over again, " * 5 + str(number)) for number in range(40)]
MORE = [*FAMILY, ROWS[3], ROWS[3]]


def as_jsonl(rows):
    return "".join(json.dumps(each) + "\n" for each in rows).encode()


@pytest.fixture(scope="module")
def client(running):
    with Client(running.address("registry"), running.key) as first:
        project = first.projects.create(f"profiles {uuid.uuid4().hex[:8]}")
    with Client(running.address("dataset"), running.key, project.name) as client:
        yield client


@pytest.fixture(scope="module")
def uploaded(client, tmp_path_factory):
    """Uploads rows."""

    def upload(name, rows, **more):
        path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
        path.write_bytes(as_jsonl(rows))
        return client.datasets.upload(name=name, path=path, task_type="sft", **more)

    return upload


@pytest.fixture(scope="module")
def versions(uploaded):
    """Three versions: the second is the first with rows appended, the third has others in part."""
    return uploaded("d", ROWS), uploaded("d", MORE, append=True), uploaded("d", [*ROWS[10:], ROWS[20], row(1000)])


def test_a_commit_tells_how_many_rows_are_new(client, versions):
    assert [(each.rows_new, each.rows_added) for each in versions] == [(100, 100), (40, 42), (1, 92)]
    events = [client.events("dataset").list(subject=each.name)[0] for each in versions]
    assert [int(json.loads(each.data_json)["rows_new"]) for each in events] == [100, 40, 1]


def test_statistics_of_a_version(client, versions):
    told = []
    found = client.datasets.statistics("d@1", progress=told.append)
    assert found.rows == 100 == sum(split.rows for split in found.splits.values())
    assert {name: split.rows for name, split in found.splits.items()} == dict(versions[0].split_rows)
    assert dict(found.roles) == {"user": 100, "assistant": 100}
    assert (found.fields["messages"].items.p50, found.answers.count, found.answers.distinct) == (2, 100, 100)
    assert {"zh", "en"} & {share.code for share in found.languages.shares}
    assert not found.HasField("labels") and SECRET not in str(found)
    assert told and told[-1].total == 100

    told.clear()
    assert client.datasets.statistics("d@1", progress=told.append) == found
    assert not told, "it was kept"


def test_rows_that_repeat_others(client, versions):
    found = client.datasets.duplicates("d@2")
    assert (found.rows, found.exact, found.near) == (142, 2, 39)
    assert {(each.row, each.twin) for each in found.exact_first} == {(141, 4), (142, 4)}
    assert [(each.rows, each.exact, list(each.first)[:2]) for each in found.largest] == [
        (40, False, [101, 102]),
        (3, True, [4, 141]),
    ]
    assert found.clusters == 2
    held_out = [row for split in ("validation", "test") for row in client.datasets.read("d@2", split)]
    leaked = [row for row in held_out if "over and over" in json.dumps(row)]
    assert found.leaked_near == len(leaked) > 0
    assert SECRET not in str(found)
    shown = client.datasets.preview("d@2", 1, start=found.largest[0].first[0])
    assert shown[0]["messages"][0]["content"] == FAMILY[0]["query"]


def test_what_two_versions_do_not_share(client, uploaded, versions):
    found = client.datasets.diff("d@1", "d@2")
    assert (found.added.rows, found.removed.rows, found.kept) == (42, 0, 100)
    assert list(found.added.first) == list(range(101, 143))
    assert (found.base_version, found.dataset_version) == (versions[0].name, versions[1].name)
    assert sum(found.added.splits.values()) == 42
    found = client.datasets.diff("d@1", "d@3")
    assert (found.added.rows, found.removed.rows, found.kept) == (2, 10, 90)
    assert (list(found.added.first), list(found.removed.first)) == ([91, 92], list(range(1, 11)))
    with pytest.raises(NotFound):
        client.datasets.diff("d@7", "d@1")
    uploaded("e", ROWS[:1])
    with pytest.raises(Invalid, match="are of two datasets"):
        client.datasets.diff("d@1", "e@1")


def test_a_preview_is_of_rows_and_says_where_it_ends(client, versions):
    shown = client.datasets.preview("d@1", 2, start=99)
    assert [each["messages"][1]["content"] for each in shown] == [ROWS[98]["response"], ROWS[99]["response"]]
    assert set(shown[0]) == {"messages"}
    assert client.datasets.preview("d@1", start=101) == []
    assert len(client.datasets.preview("d@1", 100, split="test")) == versions[0].split_rows["test"]
    with pytest.raises(Invalid, match="counted from 1"):
        client.datasets.preview("d@1", start=0)


async def test_who_may_not_read_rows_is_told_their_numbers_and_no_label(running, client, versions, keys):
    _, key = await keys(types.ROLE_OPERATIONS, client.project)
    with Client(running.address("dataset"), key, client.project) as other:
        assert other.datasets.diff("d@1", "d@2").added.rows == 42
        with pytest.raises(Denied):
            other.datasets.statistics("d@1")


def test_the_command_line_shows_them(running, client, versions, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SLUICE_ADDRESS", running.address("dataset"))
    monkeypatch.setenv("SLUICE_API_KEY", running.key)
    monkeypatch.setenv("SLUICE_PROJECT", client.project)
    assert run(["dataset", "stats", "d@2", "--duplicates", "--html", str(tmp_path / "d.html")]) == 0
    said = capsys.readouterr().out
    assert "d@2: 142 rows" in said and "2 groups of rows" in said
    made = (tmp_path / "d.html").read_text("utf-8")
    assert "<svg" in made and SECRET not in made + said
    assert run(["dataset", "stats", "d@2", "--duplicates", "--json"]) == 0
    described, repeated = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (described["rows"], repeated["exact"]) == ("142", "2")
    assert run(["dataset", "preview", "d@2", "-n", "1", "--from", "141"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("141") and ROWS[3]["response"][:60] in said
    assert run(["dataset", "preview", "d@1", "--from", "500"]) == 0
    assert "there is no row 500" in capsys.readouterr().err
    assert run(["dataset", "diff", "d@1", "d@2"]) == 0
    said = capsys.readouterr()
    assert "only in d@2" in said.out and "preview d@2 --from 101 -n 1" in said.err
    assert run(["dataset", "diff", "d@1", "d@9"]) == 3
