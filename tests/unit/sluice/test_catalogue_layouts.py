"""Every layout of the catalogue maps rows that are made up from nothing but what the layout itself says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from catalogue_files import delimited, read_rows, write_files
from catalogue_files import lines as lines_of

from sluice.catalogue import Entry, entries
from sluice.catalogue.canonical import write
from sluice.catalogue.entry import REQUIRED, Conversation, Layout, Pick
from sluice.catalogue.mirror import Found
from sluice.catalogue.template import Path as Way
from sluice.catalogue.template import parse, path

DOMAINS = sorted({entry.domain for entry in entries().values()})
SIDES = ("system", "text", "prompt", "completion", "chosen", "rejected", "query", "positive", "label")
LISTS = ("negatives", "labels", "images", "audios", "tokens", "tags")
#: A text that the expressions of every entry that looks for something in a text find something in.
TEXT = "FINDINGS: clear IMPRESSION: #### 7"
DIALOGUE = "\n\nHuman: why\n\nAssistant: so"
LINE = 'x1, 30.000, 40.000, "/m/09x0r" 3'


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_made_up_row_becomes_a_canonical_one(domain: str, tmp_path: Path):
    for entry in entries().values():
        for place, layout in enumerate(entry.layouts):
            if entry.domain == domain:
                check(entry, layout, tmp_path / f"{entry.id}-{place}")


def check(entry: Entry, layout: Layout, folder: Path) -> None:
    row = made_up(layout)
    positional = not layout.header
    assert set(row) <= set(layout.columns), f"{entry.id} reads columns it does not declare"
    assert set(row) == set(layout.columns) or positional, f"{entry.id} declares columns it does not read"
    row = {column: row.get(column, "unused") for column in layout.columns}
    split = next(iter(layout.splits))
    name = file_name(layout)
    write_files(folder / "mirror", {name: content(layout, row)})
    files = sorted((folder / "mirror").glob(layout.patterns(split)[0]))
    assert [str(each.relative_to(folder / "mirror")) for each in files] == [name], entry.id
    written = write(entry, Found(layout, split, folder / "mirror", files), folder / "rows.zst")
    assert written.rows >= 1 and written.left_out == 0, entry.id
    made = read_rows(folder / "rows.zst")[0]
    for names in REQUIRED[entry.task_type]:
        assert any(made.get(each) not in (None, "", []) for each in names), f"{entry.id} has no {names}"


def file_name(layout: Layout) -> str:
    pattern = layout.patterns(next(iter(layout.splits)))[0].replace("[a-z]*", "x")
    name = (pattern[:-1] if pattern.endswith(("json*", "csv*")) else pattern).replace("*", "x1")
    return f"{name}.jpg" if layout.format == "images" and "." not in name else name


def content(layout: Layout, row: dict[str, Any]) -> Any:
    if layout.format in ("txt", "documents"):
        return row["line" if layout.format == "txt" else "text"]
    if layout.format == "images":
        return b"\x00"
    if layout.format == "webdataset":
        return {"x1.jpg": b"\x00", "x1.txt": "a caption"}
    if layout.format in ("csv", "tsv"):
        flat = {column: json.dumps(value) if isinstance(value, list | dict) else value for column, value in row.items()}
        lines = "a line that is skipped\n" * layout.skip_lines
        return (lines.encode() + delimited([flat], "\t" if layout.format == "tsv" else ",", layout.header)).decode()
    for column in reversed(layout.explode):
        row = {**row, column: [row[column]]} if column in row else {column: [row]}
    if layout.format == "jsonl":
        return lines_of([row]).decode()
    return {layout.rows: [row]} if layout.rows else [row]


def made_up(layout: Layout) -> dict[str, Any]:
    """One row of the layout's columns, each as deep as the mapping goes into it."""
    rows, mapping = Rows(), layout.mapping
    for name in SIDES:
        rows.grow(getattr(mapping, name))
    for part in (*mapping.conversations.values(), mapping.messages):
        rows.grow(part)
    for turn in mapping.messages if isinstance(mapping.messages, list) else []:
        rows.grow(next(iter(turn.values())))
    for name in LISTS:
        rows.grow_list(getattr(mapping, name), many=not mapping.label_separator)
    if choice := mapping.choice:
        rows.grow(choice.question)
        rows.grow_list(choice.options, many=True)
        if choice.answer:
            right = {"index": "0", "one-based": "1", "text": "one"}.get(choice.kind, "B")
            rows.put(path(str(choice.answer)), right)
    if mapping.tag_names:
        rows.put(path(str(mapping.tags)), ["0", "0"])
    if mapping.label and (mapping.completion or "completion" in mapping.conversations):
        rows.put(path(str(mapping.label)), "true")
    rows.row |= {column: values[0] for column, values in layout.where.items()}
    rows.row |= dict(layout.at_least)
    return rows.row


class Rows:
    """A row that grows with the paths that are taken into it."""

    def __init__(self) -> None:
        self.row: dict[str, Any] = {}

    def grow(self, part: Any) -> None:
        """Puts a value at the end of each path of a template, a pick or a conversation."""
        if isinstance(part, str):
            for way in parse(part):
                if isinstance(way, Way):
                    self.put(way, "7" if way.width else LINE if way.column == "line" else TEXT)
        elif isinstance(part, Pick) and isinstance(part.of, dict):
            for template in part.of.values():
                self.grow(template)
            self.put(path(part.by), next(iter(part.of)))
        elif isinstance(part, Pick):
            self.grow(part.of)
            if "Assistant" in part.find:
                self.put(path(part.of), DIALOGUE)
            if isinstance(part.names, dict) and part.names:
                self.put(path(part.of), list(part.names)[len(part.names) // 2])
            elif part.names and not part.find:
                self.put(path(part.of), "0")
        elif isinstance(part, Conversation):
            turns = [{part.role: "user", part.content: "why"}, {part.role: "assistant", part.content: "so"}]
            self.put(path(part.turns), ["why", "so"] if part.alternate else turns)

    def grow_list(self, part: Any, many: bool) -> None:
        """Puts two texts at the end of the path of a list, or grows each of the templates."""
        if isinstance(part, list):
            for item in part:
                self.grow(item)
        elif part and many:
            self.put(path(part), ["one", "two"])
        else:
            self.grow(part)

    def put(self, way: Way, value: Any) -> None:
        self.row[way.column] = _into(self.row.get(way.column), list(way.steps), value)


def _into(there: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if step.lstrip("-").isdigit():
        first = there[0] if isinstance(there, list) and there else None
        return [_into(first, rest, value)] * 2
    if isinstance(there, list) and there and isinstance(there[0], dict):
        return [{**item, step: _into(item.get(step), rest, value)} for item in there]
    made = there if isinstance(there, dict) else {}
    return {**made, step: _into(made.get(step), rest, value)}
