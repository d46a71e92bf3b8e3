"""Which names of a file were read: told by what the row schemas read, whatever way the rows came."""

import io
import json
from typing import Any

import pytest

from sluice.rows.checking import Rules
from sluice.rows.convert import convert
from sluice.rows.schemas import check_row
from sluice.rows.sources import Sources
from sluice.rows.violations import RefusedError
from tests.unit.rows.archive_files import zipped

ASK, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TALK = [ASK, ANSWER]
ABOUT = {"id": "1", "group": "g", "tags": ["t"], "source": "web", "url": "x"}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("sft", {"messages": TALK, "prompt": "no", "completion": "no", "system": "no"}),
    ("sft", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}),
    ("sft", {"instruction": "q", "input": "c", "output": "a", "system": "s", "history": [["b", "c"]]}),
    ("sft", {"query": "q", "response": "a", "output": "no", "input": "no"}),
    ("sft", {"prompt": [ASK], "completion": [ANSWER], "system": "no", "history": []}),
    ("sft", {"findings": "f", "impression": "i", "image_path": "a.png", "text": "no"}),
    ("sft", {"messages": TALK, "images": ["a.png"], "audio": "a.wav", "frames": ["1.png"]}),
    ("vqa", {"question": "q", "answer": "a", "image": "a.png", "image_path": "b.png"}),
    ("vqa", {"question": "q", "output": "a", "image": "", "img_path": "b.png"}),
    ("grounding", {"expression": "the cat", "bbox": [1, 2, 3, 4], "image": "a.png", "text": "no"}),
    ("grounding", {"question": "where", "boxes": [[1, 2, 3, 4]], "image": "a.png", "phrase": "no"}),
    ("grounding", {"question": "where", "answer": "there", "image": "a.png", "bbox": "no"}),
    ("grounding", {"caption": "the cat", "answer": "there", "image": "a.png", "bbox": "no"}),
    ("caption", {"caption": "a cat", "text": "no", "image": "a.png", "system": "no"}),
    ("asr", {"text": "good morning", "audio": "a.wav", "answer": "no"}),
    ("caption", {"question": "what", "answer": "a cat", "image": "a.png", "caption": "no"}),
    ("pretrain", {"text": "t", "content": "no"}),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "system": "s"}),
    ("preference", {"prompt": "no", "messages": TALK, "chosen": TALK, "rejected": [ASK, {**ANSWER, "content": "b"}]}),
    ("preference", {"query": "q", "response": "a", "rejected_response": "b", "rejected_messages": "no"}),
    ("preference", {"messages": TALK, "rejected_response": "b"}),
    ("preference", {"conversations": [{"from": "human", "value": "q"}], "chosen": "a", "rejected": "b"}),
    ("feedback", {"prompt": "q", "completion": "a", "label": True, "kto_tag": False}),
    ("feedback", {"instruction": "q", "input": "c", "output": "a", "kto_tag": True, "image": "a.png"}),
    ("feedback", {"messages": TALK, "completion": "no", "label": True}),
    ("retrieval", {"query": "q", "pos": ["p"], "neg": ["n"], "question": "no", "answer": "no"}),
    ("retrieval", {"anchor": "q", "positive": "p"}),
    ("classification", {"sentence": "t", "label": "l", "input": "no", "output": "no"}),
    ("classification", {"image": "a.png", "label_name": "l"}),
    ("image-text-classification", {"text": "t", "input": "no", "image": "a.png", "label": "l", "labels": "no"}),
    ("entities", {"text": "John", "entities": [[0, 4, "PER"]], "spans": "no", "content": "no"}),
    ("entities", {"sentence": "John", "label": [[0, 4, "PER"]], "labels": "no", "ner_tags": "no"}),
    ("entities", {"tokens": ["John"], "ner_tags": ["B-PER"], "text": "no", "entities": "no"}),
]


def read(rows: list[dict[str, Any]], rules: Rules, odd: bytes = b"", name: str = "rows.jsonl") -> Sources:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    content = zipped({"rows.jsonl": lines + odd}) if name.endswith(".zip") else lines + odd
    return convert(io.BytesIO(content), name, rules).sources


def canonical(row: dict[str, Any], schema: str) -> bytes | None:
    try:
        return check_row(json.dumps(row).encode(), schema)
    except RefusedError:
        return None


@pytest.mark.parametrize("odd", [b"", b'{"id": [1], "source": {}}\n{"id": {}, "source": 1}\n'], ids=["columns", "rows"])
@pytest.mark.parametrize(("schema", "row"), ROWS)
def test_a_row_without_a_name_is_another_when_the_name_was_read_and_only_then(schema, row, odd) -> None:
    row = {**row, **ABOUT}
    found = read([row], Rules(schema, quarantine=True), odd)
    used = {name for names in found.columns().values() for name in names}
    whole = canonical(row, schema)
    assert whole is not None
    empty = {name for name, value in row.items() if value in ("", [])}  # to read nothing changes nothing
    changing = {name for name in row if canonical({each: row[each] for each in row if each != name}, schema) != whole}
    assert used - empty == changing - empty
    assert set(found.unused()[0]) - empty == set(row) - changing - empty
    made = json.loads(whole)
    assert set(found.columns()) <= {*made, "images"} and {"id", "group", "tags"} <= set(found.columns())


def test_rows_in_several_ways_are_all_told() -> None:
    found = read([{"prompt": "q", "completion": "a"}, {"query": "q", "response": "a", "x": 1}], Rules("sft"))
    assert found.columns() == {"messages": ["prompt", "completion", "query", "response"]}
    assert found.unused() == (["x"], 0)


@pytest.mark.parametrize("odd", [b"", b'{"befund": 7}\n{"prompt": 7}\n'], ids=["columns", "rows"])
def test_names_are_those_of_the_file_whatever_they_were_said_to_mean(odd) -> None:
    row = {"befund": "f", "fazit": "i", "prompt": "hidden", "pid": "P1"}
    rules = Rules("sft", {"befund": "prompt", "fazit": "completion", "pid": "group"}, quarantine=True)
    found = read([row], rules, odd)
    assert found.columns() == {"messages": ["befund", "fazit"], "group": ["pid"]}
    assert found.unused() == (["prompt"], 0)
    loose = Rules("sft", {"befund": "prompt"}, quarantine=True, loose=True)
    own = read([{"prompt": "q", "completion": "a"}], loose, odd)
    assert own.columns()["messages"][:2] == ["prompt", "completion"]


def test_a_name_that_was_repaired_was_read() -> None:
    found = read([{"prompt": "q", "completon": "a", "x": 1}], Rules("sft", fix=True))
    assert (found.columns(), found.unused()) == ({"messages": ["prompt", "completon"]}, (["x"], 0))


def test_names_that_may_be_content_are_counted_and_not_told() -> None:
    many = {f"patient {number}": 1 for number in range(60)}
    assert read([{"text": "t", **many}], Rules("pretrain")).unused() == ([], 60)
    assert read([{"text": "t", "x" * 41: 1, "b": 2}], Rules("pretrain")).unused() == (["b"], 1)
    archived = read([{"text": "t", "b": 2}], Rules("pretrain"), name="rows.zip")
    assert (archived.columns(), archived.unused()) == ({"text": ["text"]}, (["b"], 0))


def test_what_stands_in_no_row_was_not_read() -> None:
    found = read(
        [{"instruction": "q", "input": None, "output": "a"}, {"instruction": "q", "output": "a"}], Rules("sft")
    )
    assert found.columns() == {"messages": ["instruction", "output"]} and found.unused() == ([], 0)
