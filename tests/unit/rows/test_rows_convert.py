"""Files into canonical rows: conventions, violations, numbers of lines, splits, damaged files."""

import gzip
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sluice.rows import SPLITS, UnknownFormatError
from sluice.rows.checking import Rules
from sluice.rows.convert import Outcome, convert
from sluice.rows.erasing import sifted
from sluice.rows.formats.compression import BombError, unpacked
from sluice.rows.parts import Part
from sluice.rows.recall import Forgotten, Recall
from tests.unit.rows.stored import rows_of

TALK = {"messages": [{"role": "user", "content": "问 question"}, {"role": "assistant", "content": "answer"}]}
CANONICAL = '{"messages":[{"role":"user","content":"问 question"},{"role":"assistant","content":"answer"}]}'


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def run(content: bytes | Path, name: str = "rows.jsonl", schema: str = "sft") -> tuple[Outcome, list[str]]:
    parts: list[Part] = []
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        outcome = convert(file, name, Rules(schema), parts.append)
    return outcome, [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row, _ in rows_of(parts)]


def kinds(outcome: Outcome) -> list[tuple[int, str, str]]:
    return [(each.row, each.field, each.kind) for each in outcome.violations]


@pytest.mark.parametrize(
    "row",
    [
        TALK,
        {
            **TALK,
            "messages": [{**TALK["messages"][0], "name": "x"}, {**TALK["messages"][1], "tool_calls": None}],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "问 question"}]},
                TALK["messages"][1],
            ]
        },
        {"conversations": [{"from": "human", "value": "问 question"}, {"from": "gpt", "value": "answer"}]},
        {"instruction": "问 question", "input": "", "output": "answer"},
        {"query": "问 question", "response": "answer", "history": []},
        {"prompt": "问 question", "completion": "answer"},
        {"prompt": TALK["messages"][:1], "completion": TALK["messages"][1:]},
        {"question": "问 question", "answer": "answer", "source": "x"},
    ],
)
def test_every_convention_gives_the_canonical_row(row: dict[str, Any]) -> None:
    outcome, rows = run(jsonl(row))
    assert outcome.accepted and rows == [CANONICAL]


def test_context_history_system_id_and_tags_are_kept() -> None:
    _, rows = run(
        jsonl(
            {"instruction": "a", "input": "b", "output": "c", "id": 7, "tags": ["x"]},
            {"query": "q2", "response": "r2", "history": [["q1", "r1"]], "system": "s"},
        )
    )
    first, second = (json.loads(row) for row in rows)
    assert first["messages"][0]["content"] == "a\nb" and first["id"] == "7" and first["tags"] == ["x"]
    assert [m["content"] for m in second["messages"]] == ["s", "q1", "r1", "q2", "r2"]


USER, ANSWER = TALK["messages"]


@pytest.mark.parametrize(
    ("row", "field", "kind", "repair"),
    [
        ({"question": "q", "anwser": "a"}, "answer", "missing-field", "`anwser` → `answer`?"),
        ({"mesages": []}, "messages", "missing-field", "`mesages` → `messages`?"),
        ({"a": 1}, "messages", "missing-field", "give `messages`"),
        ({"messages": []}, "messages", "empty-list", ""),
        ({"messages": "x"}, "messages", "wrong-type", ""),
        ({"messages": [USER]}, "messages", "missing-role", ""),
        ({"messages": [ANSWER]}, "messages", "missing-role", ""),
        ({"messages": [USER, ANSWER, USER]}, "messages[2]", "wrong-last-role", ""),
        (
            {"messages": [USER, {"role": "assistant", "content": " "}]},
            "messages[1].content",
            "empty-text",
            "",
        ),
        ({"messages": [USER, {"role": "assistant", "content": 5}]}, "messages[1].content", "wrong-type", ""),
        (
            {"messages": [USER, {"role": "asistant", "content": "x"}]},
            "messages[1].role",
            "unknown-role",
            "`assistant`",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            "messages[1].role",
            "unsupported-role",
            "tools",
        ),
        (
            {"messages": [USER, {"role": "assistant", "contnet": "x"}]},
            "messages[1].content",
            "missing-field",
            "→",
        ),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{}]}]}, "messages[1]", "unknown-field", "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file"}]}, ANSWER]},
            "messages[0].content[0]",
            "unsupported-content",
            "files",
        ),
        ({**TALK, "id": [1]}, "id", "wrong-type", ""),
        ({**TALK, "tags": 5}, "tags", "wrong-type", ""),
        ([1], "", "wrong-type", ""),
        (None, "", "wrong-type", ""),
    ],
)
def test_a_violation_names_place_kind_and_repair(row: object, field: str, kind: str, repair: str) -> None:
    outcome, rows = run(jsonl(TALK, row))
    assert kinds(outcome) == [(2, field, kind)] and len(rows) == 1
    violation = outcome.violations[0]
    assert repair in violation.repair and violation.expected and violation.found and violation.repair


def test_content_never_enters_a_violation() -> None:
    secret = "Erika Mustermann 1964"
    rows = [
        {"messages": [{"role": secret, "content": secret}]},
        {"messages": secret, "id": [secret]},
        {"messages": [{"role": "user", "content": {secret: secret}}]},
        {secret: secret},
        secret,
    ]
    outcome, _ = run(jsonl(*rows) + f'{{"messages": "{secret}'.encode())
    assert sum(outcome.counts.values()) == 6
    assert "Mustermann" not in repr(outcome.violations)


def test_the_line_of_broken_json_is_exact() -> None:
    lines = jsonl(*[TALK] * 10_000).splitlines(keepends=True)
    lines[6] = lines[6][:-10] + b"\n"
    lines[8_999] = b'{"messages": [}\n'
    lines[20] = b"\r\n"
    outcome, rows = run(b"".join(lines))
    assert kinds(outcome) == [(7, "", "malformed-json"), (9_000, "", "malformed-json")]
    assert len(rows) == 9_997 == outcome.row_count


def test_counts_are_of_all_and_violations_the_first_hundred() -> None:
    outcome, _ = run(jsonl(*[{"prompt": "x"}] * 250))
    assert len(outcome.violations) == 100 and outcome.counts == {"missing-field": 250}


@pytest.mark.parametrize("schema", ["sft", "pretrain"])
def test_an_empty_file_has_no_rows(schema: str) -> None:
    for content in (b"", b"\n\n", b"\xef\xbb\xbf"):
        assert run(content, schema=schema)[0].counts == {"no-rows": 1}


def test_pretrain_takes_text() -> None:
    outcome, rows = run(jsonl({"text": "a", "x": 1}, {"text": ""}, {"txt": "a"}, {"text": 3}), schema="pretrain")
    assert rows == ['{"text":"a"}']
    assert [v.kind for v in outcome.violations] == ["empty-text", "missing-field", "wrong-type"]
    assert outcome.violations[1].repair == "`txt` → `text`?"


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst", "R.JSON", "r.json.gz", "r.json"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = [TALK, {**TALK, "id": "2"}]
    is_array = ".json" in name.lower() and ".jsonl" not in name and name != "r.json"
    content = json.dumps(rows, indent=1).encode() if is_array else b"\xef\xbb\xbf" + jsonl(*rows)
    if name.endswith("gz"):
        content = gzip.compress(content[:50]) + gzip.compress(content[50:])
    if name.endswith("zst"):
        content = zstandard.compress(content[:50]) + zstandard.compress(content[50:])
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, name)[1] == run(jsonl(*rows))[1]


@pytest.mark.parametrize("name", ["rows.docx", "rows", "rows.gz", "rows.jsonl.rar", "rows.parquet.gz"])
def test_an_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(UnknownFormatError, match=r"give \.jsonl"):
        run(b"", name)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_archive_is_told(suffix: str, damage: str) -> None:
    content = jsonl(*({**TALK, "id": str(random.random())} for _ in range(1000)))
    packed = gzip.compress(content) if suffix == "gz" else zstandard.compress(content)
    packed = packed[: len(packed) // 2] if damage == "cut" else b"no archive" + packed
    assert run(packed, f"r.jsonl.{suffix}")[0].counts["damaged-file"] == 1


ALONE = """
import json, resource, sys
from sluice.rows.checking import Rules
from sluice.rows.convert import convert
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[1], "rb") as file:
    outcome = convert(file, sys.argv[1], Rules("sft"))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([grown / 1024, outcome.row_count, outcome.counts]))
"""


def alone(path: Path) -> tuple[float, int, dict[str, int]]:
    """What a process of its own grew by in MiB while it read a file, the rows, and what was wrong with others."""
    done = subprocess.run([sys.executable, "-c", ALONE, str(path)], capture_output=True, text=True, check=True)
    grown, rows, counts = json.loads(done.stdout)
    return grown, rows, counts


def test_a_small_archive_cannot_fill_the_memory(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    assert len(bomb) < 16_384
    (tmp_path / "r.jsonl.zst").write_bytes(bomb)
    grown, rows, counts = alone(tmp_path / "r.jsonl.zst")
    assert counts == {"row-too-large": 1} and rows == 0 and grown < 100


def test_the_row_that_breaks_an_array_is_told() -> None:
    outcome, _ = run(b'[{"a":1},\n {"a":2},\n {"a":}]', "r.json")
    assert kinds(outcome) == [(3, "", "malformed-json")] and "line 3" in outcome.violations[0].found


def test_wrong_encodings_are_told() -> None:
    latin = json.dumps({"messages": "x"}).replace("x", "é").encode("latin-1")
    assert "wrong-encoding" in run(latin)[0].counts
    assert sum(run(json.dumps(TALK).encode("utf-16"))[0].counts.values()) >= 1


def test_a_row_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    huge = b'{"messages": "' + b"x" * (200 << 20) + b'"}\n' + jsonl(TALK)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(huge, 1))
    grown, rows, counts = alone(tmp_path / "r.jsonl.gz")
    assert counts == {"row-too-large": 1} and rows == 1 and grown < 100


def stored(rows: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    parts: list[Part] = []
    convert(io.BytesIO(jsonl(*rows)), "rows.jsonl", Rules("sft"), parts.append)
    return [beside for _, beside in rows_of(parts)]


def test_a_file_of_another_kind_is_given_up() -> None:
    outcome, _ = run(b"{}\n" * 110_000)
    assert outcome.counts["too-many-violations"] == 1 and outcome.counts["missing-field"] > 100_000


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_bomb_is_not_unpacked_to_its_end(suffix: str) -> None:
    blank = b"\n" * (8 << 20)
    packed = gzip.compress(blank) if suffix == "gz" else zstandard.compress(blank)
    with pytest.raises(BombError):
        for _ in unpacked(io.BytesIO(packed), suffix, always_allowed=1 << 20):
            pass


def test_splits_and_keys_follow_the_content_alone() -> None:
    rows = [{**TALK, "messages": [{"role": "user", "content": str(n)}, ANSWER]} for n in range(5_000)]
    outcome, _ = run(jsonl(*rows))
    assert sum(outcome.split_rows.values()) == 5_000 and set(outcome.split_rows) == set(SPLITS)
    assert abs(outcome.split_rows["train"] - 4_000) < 120 and abs(outcome.split_rows["test"] - 500) < 90
    found = stored(rows)
    assert stored([{**row, "id": str(n), "tags": ["x"]} for n, row in enumerate(rows)]) == found
    assert len({key for _, key in found}) == 5_000
    assert stored([TALK]) == [("train", bytes.fromhex("abb7d29e4b274ce26df0b28aa1f1b3a2"))], (
        "a release that changes keys moves rows between splits"
    )


def test_a_group_is_never_in_two_splits() -> None:
    rows = [{"prompt": str(n), "completion": "a", "patient": f"p{n % 50}"} for n in range(2_000)]
    parts: list[Part] = []
    convert(io.BytesIO(jsonl(*rows)), "rows.jsonl", Rules("sft", {"patient": "group"}), parts.append)
    splits: dict[str, set[str]] = {}
    for row, (split, _) in rows_of(parts):
        splits.setdefault(row["group"], set()).add(split)
    assert len(splits) == 50 and all(len(each) == 1 for each in splits.values())
    assert len({split for each in splits.values() for split in each}) > 1


def test_text_cannot_move_between_messages_without_another_key() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", "d")]
    rows = [{"prompt": question, "completion": answer} for question, answer in pairs]
    assert len({key for _, key in stored(rows)}) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "conversations",
                    "role",
                    "content",
                    "from",
                    "value",
                    "prompt",
                    "completion",
                    "history",
                    "query",
                    "response",
                    "system",
                    "id",
                    "tags",
                    "text",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=5), st.sampled_from(["sft", "pretrain"]))
def test_any_json_is_accepted_or_refused(rows: list[Any], schema: str) -> None:
    outcome, lines = run(jsonl(*rows), schema=schema)
    assert outcome.row_count + sum(outcome.counts.values()) == max(len(rows), 1)
    again, same = run("\n".join(lines).encode(), schema=schema)
    assert same == lines and (again.split_rows == outcome.split_rows or not lines)


@given(st.binary(max_size=200), st.sampled_from(["r.jsonl", "r.json", "r.jsonl.gz", "r.jsonl.zst"]))
def test_any_bytes_end_in_an_outcome(content: bytes, name: str) -> None:
    outcome, _ = run(content, name)
    assert outcome.row_count or outcome.counts


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("begun", ["[", '{"x":['])
@pytest.mark.parametrize("levels", [150, 300, 3_000, 100_000])
def test_a_row_that_is_nested_too_deeply_is_refused_before_it_breaks_a_parser(
    levels: int, begun: str, name: str
) -> None:
    ended = begun.translate(str.maketrans("{[", "}]", '"x:'))[::-1]
    deep = CANONICAL[:-1].encode() + b',"extra":' + (begun * levels + ended * levels).encode() + b"}"
    rows = [CANONICAL.encode(), deep, json.dumps({**TALK, "note": '"[{' * 1_000}).encode()]
    outcome, taken = run(b"\n".join(rows) if name == "rows.jsonl" else b"[" + b",".join(rows) + b"]", name)
    if levels * len(ended) < 200:
        assert outcome.accepted and len(taken) == 3
    else:
        assert kinds(outcome) == [(2, "", "nested-too-deep")]


def test_forgotten_rows_are_looked_for_in_what_nobody_can_parse() -> None:
    deep = b'{"id": "a", "messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    line = json.dumps({"row": 1, "content": deep.decode()}).encode() + b"\n"
    assert Recall(Forgotten("salt", ["sha256:1"])).put_aside([line], {}) == [line]
    assert sifted(line, ["id"], ["b"]) == (line, 0)
    assert sifted(line, ["id"], ['"a"']) == (b"", 1)
