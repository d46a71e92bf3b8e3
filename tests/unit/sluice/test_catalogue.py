"""The catalogue as a whole, how a wrong entry is told, and what stands between a copy and the rows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from catalogue_files import read_rows, write_files

from kit.rpc.errors import Invalid, NotFound
from sluice.catalogue import entries, find, mirror, read, search
from sluice.catalogue.canonical import write
from sluice.catalogue.entry import REQUIRED, Layout, Mapping
from sluice.catalogue.lines import CHUNK_BYTES, MAX_LINE_BYTES
from sluice.catalogue.mirror import Found
from sluice.catalogue.sources import frames as frames_of
from sluice.catalogue.tables import BATCH_ROWS
from sluice.catalogue.template import TemplateError, parse, text

NAMED_IN_THE_ISSUE = ("c-eval", "cmmlu", "mmlu", "gsm8k", "coco", "laion-400m", "audio-set", "mimic-cxr")
GOOD = """
- id: small-set
  name: Small set
  description: Two rows.
  source: https://example.org
  licence: MIT
  commercial_use: "yes"
  languages: [en]
  task_type: sft
  layouts:
  - format: jsonl
    splits: {train: "train-*.jsonl", test: [test.jsonl, "*/test.jsonl"]}
    columns: [q, a]
    mapping:
      messages: [{user: "{q}"}, {assistant: "{a}"}]
"""


def test_the_catalogue_holds_what_was_asked_for():
    assert len(entries()) >= 150
    assert set(NAMED_IN_THE_ISSUE) <= set(entries())
    assert {entry.task_type for entry in entries().values()} <= set(REQUIRED)
    for entry in entries().values():
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", entry.id) and entry.domain and entry.licence
        assert entry.commercial_use == "unclear" or entry.licence != "unclear", entry.id
        assert not re.search(r"\b(NC|ND)\b", entry.licence) or entry.commercial_use != "yes", entry.id
        assert set(entry.modalities) == {"text"} or entry.task_type not in ("sft", "pretrain"), entry.id
        assert len(entry.description) <= 4000 and entry.description.endswith("."), entry.id
        assert all(len(word) <= 255 for word in (entry.licence, ",".join(entry.languages))), entry.id
    assert find("mimic-cxr").access == "credentialed"


def test_nothing_of_it_is_read_before_it_is_asked_for():
    code = "import sys, sluice, sluice.cli.app; print([m for m in sys.modules if 'catalogue' in m or m == 'yaml'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['sluice.cli.catalogue']"


def test_a_good_entry_is_read(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(GOOD)
    entry = read(tmp_path)["small-set"]
    assert (entry.domain, entry.access, entry.verified, entry.splits) == ("small", "open", "none", ["train", "test"])


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("licence: MIT", "license: MIT", "`small-set`: Object contains unknown field `license`"),
        ("licence: MIT", "licence: ' '", "`small-set`: `licence` is empty"),
        ('"yes"', "yes", "`small-set`: Expected `str`, got `bool` - at `$.commercial_use`"),
        ("id: small-set", "id: Small Set", "`id` is not of lower-case words"),
        ("task_type: sft", "task_type: stf", "`task_type` `stf` is none of pretrain, sft"),
        ("languages: [en]", "languages: [English]", "`languages` wants codes"),
        ("format: jsonl", "format: xml", "Invalid enum value 'xml' - at `$.layouts[0].format`"),
        ('"train-*.jsonl"', '"/data/*.jsonl"', "`splits`: `/data/*.jsonl` leads out of the mirror"),
        ('"*/test.jsonl"', '"../test.jsonl"', "`splits`: `../test.jsonl` leads out of the mirror"),
        ("columns: [q, a]", "columns: [q]", "`mapping` reads `a`, which is not in `columns`"),
        ('"{q}"', '"{q"', "`mapping`: `{q` has a lone brace"),
        ('"{q}"', '"{}"', "names no column"),
        ('{assistant: "{a}"}', '{asistant: "{a}"}', "Invalid enum value 'asistant'"),
        ("messages: [{user: \"{q}\"}, {assistant: \"{a}\"}]", "text: '{q}{a}'", "fills no `messages`"),
        ('{user: "{q}"}', '{user: {of: "{q}", find: "x"}}', "wants one group"),
        ('{user: "{q}"}', '{user: {of: {x: "{q}"}}}', "`by` goes with"),
        ("task_type: sft", "task_type: sft\n  verified: layout", "`seen` names what the entry was compared with"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_told_by_file_id_and_field(right: str, wrong: str, said: str, tmp_path: Path):
    assert right in GOOD
    (tmp_path / "small.yaml").write_text(GOOD.replace(right, wrong))
    with pytest.raises(Invalid) as refused:
        read(tmp_path)
    assert refused.value.message.startswith("small.yaml: ") and said in refused.value.message


def test_an_id_is_there_once_and_a_file_is_a_list(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    with pytest.raises(Invalid, match=r"b\.yaml: `small-set` is there twice; the other is in a\.yaml"):
        read(tmp_path)
    (tmp_path / "b.yaml").write_text("id: x")
    with pytest.raises(Invalid, match=r"b\.yaml should be a list"):
        read(tmp_path)
    (tmp_path / "b.yaml").write_text("- id: [")
    with pytest.raises(Invalid, match=r"b\.yaml is no YAML"):
        read(tmp_path)


def test_an_entry_is_found_by_id_and_by_what_it_says():
    with pytest.raises(NotFound, match="perhaps `c-eval`"):
        find("CEval")
    assert [entry.id for entry in search("bank intents")] == ["banking77"]
    chinese = search(language="zh", task_type="dpo")
    assert "coig-p" in [entry.id for entry in chinese] and all("zh" in entry.languages for entry in chinese)
    assert {entry.domain for entry in search(domain="audio", modality="audio")} == {"audio"}


def filled(template: str, frame: pl.DataFrame) -> list[str | None]:
    return frame.select(made=text(template, frame.schema))["made"].to_list()


def test_templates_go_into_lists_objects_and_json():
    frame = pl.DataFrame(
        {
            "q": ["why", "  ", None],
            "deep": [{"a": [{"b": "x"}, {"b": "y"}]}, {"a": []}, None],
            "json": ['{"a": ["z"]}', "[]", "no json"],
            "id": [7, 12345, None],
            "flags": [[True, False], [], None],
        }
    )
    assert filled("Q: {q}", frame) == ["Q: why", None, None]
    assert filled("{q}\n{deep.a.0.b}", frame) == ["why\nx", None, None]
    assert filled("{deep.a.b}", frame) == ["x\ny", None, None]
    assert filled("{deep.a.-1.b}", frame) == ["y", None, None]
    assert filled("{json.a.0}", frame) == ["z", None, None]
    assert filled("{id:04}.jpg", frame) == ["0007.jpg", "12345.jpg", None]
    assert filled("{flags}", frame) == ["true\nfalse", None, None]
    assert filled("{{{q}}}", frame)[0] == "{why}"
    assert filled("{absent}{q}", frame) == ["why", None, None]
    assert filled("always", frame) == ["always"]
    with pytest.raises(TemplateError, match="is a Struct, not text"):
        filled("{deep}", frame)
    with pytest.raises(TemplateError, match="goes into a Int64"):
        filled("{id.x}", frame)
    with pytest.raises(TemplateError):
        parse("{a..b}")


QA = Mapping(messages=[{"user": "{q}"}, {"assistant": "{a}"}])


def found(root: Path, form: str, files: dict[str, object], **more: object) -> Found:
    write_files(root, files)
    layout = Layout(form, {"train": "*"}, ["q", "a"], QA, **more)  # type: ignore[arg-type]
    return Found(layout, "train", root, sorted(path for path in root.rglob("*") if path.is_file()))


ROWS = [{"q": f"question {number}", "a": f"answer {number}", "other": number} for number in range(5)]


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("parquet", {"a.parquet": ROWS[:2], "b.parquet": ROWS[2:]}),
        ("arrow", {"a.arrow": ROWS}),
        ("jsonl", {"a.jsonl": ROWS[:2], "b.jsonl.gz": ROWS[2:4], "c.jsonl.zst": ROWS[4:]}),
        ("json", {"a.json": ROWS}),
        ("json", {f"{number}.json": row for number, row in enumerate(ROWS)}),
        ("csv", {"a.csv": ROWS}),
        ("tsv", {"a.tsv": ROWS}),
    ],
)
def test_every_format_is_read_and_gives_the_same_bytes(form: str, files: dict[str, object], tmp_path: Path):
    copy = found(tmp_path / "copy", form, files)
    made = [tmp_path / "one", tmp_path / "two"]
    for target in made:
        assert write(find("alpaca"), copy, target).rows == 5
        assert target.stat().st_mode & 0o777 == 0o600
    assert made[0].read_bytes() == made[1].read_bytes()
    assert [row["messages"][1]["content"] for row in read_rows(made[0])] == [row["a"] for row in ROWS]


def test_frames_are_bounded_whatever_the_file(tmp_path: Path):
    many = [{"q": str(number), "a": "a"} for number in range(3 * BATCH_ROWS + 1)]
    for form in ("parquet", "jsonl", "json", "csv"):
        copy = found(tmp_path / form, form, {f"x.{form}": many})
        sizes = [len(frame) for frame in frames_of(copy)]
        assert sum(sizes) == len(many) and max(sizes) <= BATCH_ROWS, form


def test_images_inside_the_rows_are_not_held(tmp_path: Path):
    rows = [{"q": {"bytes": b"x" * 1000, "path": f"{number}.png"}, "a": "so"} for number in range(600)]
    copy = found(tmp_path / "copy", "parquet", {"x.parquet": rows}, media="embedded")
    frames = list(frames_of(copy))
    assert sum(len(frame) for frame in frames) == 600 and max(len(frame) for frame in frames) <= 256
    assert {str(frame.schema["q"]) for frame in frames} == {"Struct({'path': String})"}


def test_rows_that_want_something_are_left_out_and_counted(tmp_path: Path):
    rows = [{"q": "why", "a": "so"}, {"q": "why", "a": ""}, {"q": None, "a": "so"}, {"a": "so"}]
    copy = found(tmp_path / "copy", "jsonl", {"a.jsonl": rows})
    written = write(find("alpaca"), copy, tmp_path / "rows")
    assert (written.rows, written.left_out) == (1, 3)
    with pytest.raises(Invalid, match=r"none of the 1 rows of the split `train` of `gsm8k` is complete.*--split test"):
        write(find("gsm8k"), found(tmp_path / "bare", "jsonl", {"a.jsonl": rows[1:2]}), tmp_path / "more")
    with pytest.raises(Invalid, match="holds no rows"):
        write(find("alpaca"), found(tmp_path / "empty", "jsonl", {"a.jsonl": "\n"}), tmp_path / "none")


@pytest.mark.parametrize(
    ("form", "files", "said"),
    [
        ("parquet", {"x.parquet": b"PAR1 no more"}, "`x.parquet` cannot be read as parquet"),
        ("parquet", {"x.parquet": [{"q": "why", "answer": "so"}]}, "`x.parquet` has no column `a`; it has q, answer"),
        ("parquet", {"x.parquet": [{"q": {"deep": "why"}, "a": "so"}]}, "`q` is a Struct, not text"),
        ("csv", {"x.csv": "q,b\n1,2\n"}, "`x.csv` has no column `a`; it has q, b"),
        ("jsonl", {"x.jsonl": '{"q": "why"\n'}, "`x.jsonl` cannot be read as jsonl"),
        ("jsonl", {"x.jsonl.gz": b"no gzip"}, "`x.jsonl.gz` is damaged"),
        ("json", {"x.json": '[{"q": '}, "`x.json` cannot be read as json"),
        ("webdataset", {"x.tar": b"no tar, and long enough to be none" * 20}, "`x.tar` cannot be read as webdataset"),
    ],
)
def test_a_file_that_is_wrong_is_named(form: str, files: dict[str, object], said: str, tmp_path: Path):
    with pytest.raises(Invalid) as refused:
        write(find("alpaca"), found(tmp_path / "copy", form, files), tmp_path / "rows")
    assert said in refused.value.message and "why" not in refused.value.message


def test_a_conversation_with_a_role_that_is_not_known_is_left_out(tmp_path: Path):
    talk = [{"from": "human", "value": "why"}, {"from": "gpt", "value": "so"}]
    rows = [{"conversations": talk}, {"conversations": [talk[0], {"from": "tool", "value": "x"}, talk[1]]}]
    rows += [{"conversations": talk[1:]}, {"conversations": [talk[0], {"from": "gpt", "value": " "}]}]
    write_files(tmp_path / "copy", {"a.jsonl": rows})
    written = write(find("slim-orca"), mirror.find(find("slim-orca"), tmp_path / "copy"), tmp_path / "rows")
    assert (written.rows, written.left_out) == (1, 3)


def test_rows_may_differ_in_their_columns_and_types(tmp_path: Path):
    rows = (
        '\ufeff{"q": 1, "a": "one"}\n{"q": "two", "a": 2.5, "more": [1]}\n{"a": true, "q": "three", "more": {"x": 1}}\n'
    )
    write(find("alpaca"), found(tmp_path / "copy", "jsonl", {"a.jsonl": rows}), tmp_path / "rows")
    turns = [[turn["content"] for turn in row["messages"]] for row in read_rows(tmp_path / "rows")]
    assert turns == [["1", "one"], ["two", "2.5"], ["three", "true"]]
    mixed = '{"question": "?", "choices": ["a", "b"], "answer": 1}\n{"question": "?", "choices": {}, "answer": "x"}\n'
    layout = Layout("jsonl", {"train": "*"}, ["question", "choices", "answer"], find("mmlu").layouts[0].mapping)
    write_files(tmp_path / "mixed", {"a.jsonl": mixed})
    got = write(
        find("mmlu"), Found(layout, "train", tmp_path / "mixed", [tmp_path / "mixed/a.jsonl"]), tmp_path / "two"
    )
    assert (got.rows, got.left_out) == (1, 1)
    write_files(tmp_path / "mixed", {"a.jsonl": mixed.replace("{}", '"[not JSON: why]"')})
    with pytest.raises(Invalid) as refused:
        write(
            find("mmlu"), Found(layout, "train", tmp_path / "mixed", [tmp_path / "mixed/a.jsonl"]), tmp_path / "three"
        )
    assert refused.value.message == "this copy of `mmlu` has values that its mapping cannot take (ComputeError)"


def test_a_file_without_lines_is_not_read_to_its_end(tmp_path: Path):
    copy = found(tmp_path / "copy", "jsonl", {"a.jsonl": b"["})
    with (tmp_path / "copy/a.jsonl").open("r+b") as file:
        file.truncate(MAX_LINE_BYTES + 2 * CHUNK_BYTES)
    with pytest.raises(Invalid, match=r"`a\.jsonl` has a line of more than 64 MiB"):
        write(find("alpaca"), copy, tmp_path / "rows")


def test_a_copy_is_looked_through_for_what_the_layout_says(tmp_path: Path):
    gsm8k = find("gsm8k")
    with pytest.raises(Invalid, match="there is no folder"):
        mirror.find(gsm8k, tmp_path / "none")
    (tmp_path / "gsm8k.zip").write_bytes(b"")
    with pytest.raises(Invalid, match=r"wants `main/train-\*\.parquet` or `train\.jsonl`.* unpack `gsm8k\.zip`"):
        mirror.find(gsm8k, tmp_path)
    with pytest.raises(NotFound, match="has no split `dev`; it has train, test"):
        mirror.find(gsm8k, tmp_path, "dev")
    write_files(tmp_path, {"main/test-0.parquet": b"", "main/train-1.parquet": b"", "main/train-0.parquet": b""})
    assert [path.name for path in mirror.find(gsm8k, tmp_path).files] == ["train-0.parquet", "train-1.parquet"]
    assert mirror.find(gsm8k, tmp_path, "test").split == "test"


def test_a_link_out_of_the_copy_is_refused(tmp_path: Path):
    write_files(tmp_path, {"outside/secret.parquet": b"", "copy/README.md": "", "copy/main/x": ""})
    (tmp_path / "copy/main/train-0.parquet").symlink_to(tmp_path / "outside/secret.parquet")
    with pytest.raises(Invalid, match=r"`main/train-0\.parquet` is a link that leads out of"):
        mirror.find(find("gsm8k"), tmp_path / "copy")
    (tmp_path / "copy/main").rename(tmp_path / "outside/main")
    (tmp_path / "copy/main").symlink_to(tmp_path / "outside/main")
    with pytest.raises(Invalid, match="leads out of"):
        mirror.find(find("gsm8k"), tmp_path / "copy")


def test_a_folder_of_a_hugging_face_cache_is_a_copy(tmp_path: Path):
    write_files(tmp_path, {"blobs/abc": b"", "refs/main": "f00d", "snapshots/old/x": b"", "snapshots/f00d/main/x": b""})
    (tmp_path / "snapshots/f00d/main/train-0.parquet").symlink_to("../../../blobs/abc")
    got = mirror.find(find("gsm8k"), tmp_path)
    assert (got.root.name, [path.name for path in got.files]) == ("f00d", ["train-0.parquet"])
    (tmp_path / "refs/main").unlink()
    with pytest.raises(Invalid, match="holds 2 snapshots"):
        mirror.find(find("gsm8k"), tmp_path)
